"""Reads an archive with an engine and compares counts, sums and books with what production said.

    check.py --url URL --facts FACTS.json --engine duckdb|pyarrow|spark|clickhouse|iceberg --ddl FILE

FACTS.json: {"tables": {name: {"count": n, "sums": {column: n}}},
             "books": [{"ticker": t, "at": micros, "levels": [[side, price, size], ...]}]}
Numbers are production's: micro-dollars, hundredths of a contract, microseconds. A column that ends in
_ts or _at or _from is summed up as the microsecond within its second.
"""

import argparse
import datetime
import decimal
import json
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "etc" / "archive"))

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


def is_time(column):
    return column.endswith(("_ts", "_at", "_from"))


def moment(micros):
    return EPOCH + datetime.timedelta(microseconds=micros)


def unscaled(value, digits):
    scaled = decimal.Decimal(value).scaleb(digits)
    assert scaled == int(scaled), value
    return int(scaled)


def number(value):
    """A sum as production would have it, whose digits behind the point are its type's."""
    if value is None:
        return 0
    if isinstance(value, decimal.Decimal):
        return int(value.scaleb(-value.as_tuple().exponent))
    return int(value)


def levels(rows):
    return sorted([bool(side), unscaled(price, 6), unscaled(size, 2)] for side, price, size in rows)


class DuckDb:
    def __init__(self, arguments):
        import duckdb

        self.db = duckdb.connect()
        self.db.execute(pathlib.Path(arguments.ddl).read_text())
        self.db.execute((ROOT / "etc" / "archive" / "book_at.duckdb.sql").read_text())

    def facts(self, table, columns):
        sums = [
            f"sum(epoch_us({column}) % 1000000)" if is_time(column) else f"sum({column})"
            for column in columns
        ]
        row = self.db.execute(f"SELECT count(*), {', '.join(sums)} FROM {table}").fetchone()
        return row[0], dict(zip(columns, map(number, row[1:])))

    def book(self, ticker, at):
        found = self.db.execute("SELECT * FROM book_at(?, ?::TIMESTAMPTZ)", [ticker, moment(at).isoformat()])
        return levels(found.fetchall())


class PyArrow:
    def __init__(self, arguments):
        from book_at import Archive

        filesystem = None
        if arguments.endpoint:
            from pyarrow import fs

            filesystem = fs.S3FileSystem(
                access_key="test", secret_key="test", region="us-east-1",
                endpoint_override=arguments.endpoint,
            )
        self.archive = Archive(arguments.url, filesystem)

    def table(self, name):
        import pyarrow.dataset as ds

        parts = [part for day in self.archive.days(name) for part in self.archive.parts(name, day)]
        return ds.dataset(parts, format="parquet", filesystem=self.archive.filesystem).to_table()

    def facts(self, table, columns):
        return arrow_facts(self.table(table), columns)

    def book(self, ticker, at):
        book = self.archive.book_at(ticker, moment(at)) or {}
        return levels((side, price, size) for (side, price), size in book.items())


def arrow_facts(found, columns):
    import pyarrow as pa
    import pyarrow.compute as pc

    sums = {}
    for column in columns:
        values = found[column]
        if is_time(column):
            micros = pc.cast(values, pa.int64())
            seconds = pc.multiply(pc.divide(micros, 1_000_000), 1_000_000)
            sums[column] = number(pc.sum(pc.subtract(micros, seconds)).as_py())
        else:
            sums[column] = number(pc.sum(values).as_py())
    return found.num_rows, sums


def statements(path):
    """Of a script whose comments have lines of their own."""
    lines = [line for line in pathlib.Path(path).read_text().splitlines() if not line.startswith("--")]
    return [one.strip().removesuffix(";") for one in "\n".join(lines).split(";\n") if one.strip()]


class ClickHouse:
    """ClickHouse itself, as a library (chDB)."""

    def __init__(self, arguments):
        from chdb import session

        self.db = session.Session()
        for statement in statements(arguments.ddl):
            self.db.query(statement)
        self.db.query("USE kalshi")

    def rows(self, query):
        # Numbers in quotes, so that none becomes a float on its way.
        quoted = ("output_format_json_quote_decimals = 1, output_format_json_quote_64bit_integers = 1, "
                  "output_format_decimal_trailing_zeros = 1")
        text = str(self.db.query(f"{query} SETTINGS {quoted}", "JSONCompact"))
        return json.loads(text, parse_float=decimal.Decimal)["data"]

    def facts(self, table, columns):
        sums = [
            f"sum(toUnixTimestamp64Micro({column}) % 1000000)" if is_time(column) else f"sum({column})"
            for column in columns
        ]
        row, = self.rows(f"SELECT count(), {', '.join(sums)} FROM {table}")
        sums = [number(decimal.Decimal(value)) if value is not None else 0 for value in row[1:]]
        return int(row[0]), dict(zip(columns, sums))

    def book(self, ticker, at):
        found = self.rows(
            f"""
            WITH fromUnixTimestamp64Micro(toInt64({at}), 'UTC') AS moment, anchor AS (
                SELECT * FROM orderbook_snapshots
                WHERE ticker = '{ticker}' AND anchor_ts <= moment
                ORDER BY anchor_ts DESC, log_seq DESC LIMIT 1
            ), levels AS (
                SELECT true AS side, price, size FROM anchor ARRAY JOIN yes_prices AS price, yes_sizes AS size
                UNION ALL
                SELECT false, price, size FROM anchor ARRAY JOIN no_prices AS price, no_sizes AS size
                UNION ALL
                SELECT side, price, size_delta FROM orderbook_deltas
                WHERE ticker = '{ticker}' AND exchange_ts > (SELECT anchor_ts FROM anchor)
                  AND exchange_ts <= moment
            )
            SELECT side, price, sum(size) AS left FROM levels GROUP BY 1, 2 HAVING left <> 0
            """
        )
        return levels(found)


class Spark:
    def __init__(self, arguments):
        from pyspark.sql import SparkSession

        folder = tempfile.mkdtemp(prefix="kalshi-spark-")
        self.spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.warehouse.dir", folder)
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "2")
            .getOrCreate()
        )
        self.spark.sparkContext.setLogLevel("ERROR")
        for statement in statements(arguments.ddl):
            self.spark.sql(statement)
        self.spark.sql("USE kalshi")

    def facts(self, table, columns):
        sums = [
            f"sum(unix_micros({column}) % 1000000)" if is_time(column) else f"sum({column})"
            for column in columns
        ]
        row = self.spark.sql(f"SELECT count(*), {', '.join(sums)} FROM {table}").collect()[0]
        return row[0], dict(zip(columns, map(number, row[1:])))

    def book(self, ticker, at):
        found = self.spark.sql(
            f"""
            WITH anchor AS (
                SELECT * FROM orderbook_snapshots
                WHERE ticker = '{ticker}' AND anchor_ts <= timestamp_micros({at})
                ORDER BY anchor_ts DESC, log_seq DESC LIMIT 1
            ), levels AS (
                SELECT true AS side, level.yes_prices AS price, level.yes_sizes AS size
                FROM anchor LATERAL VIEW explode(arrays_zip(yes_prices, yes_sizes)) l AS level
                UNION ALL
                SELECT false, level.no_prices, level.no_sizes
                FROM anchor LATERAL VIEW explode(arrays_zip(no_prices, no_sizes)) l AS level
                UNION ALL
                SELECT d.side, d.price, d.size_delta FROM orderbook_deltas d, anchor a
                WHERE d.ticker = '{ticker}' AND d.exchange_ts > a.anchor_ts
                  AND d.exchange_ts <= timestamp_micros({at})
            )
            SELECT side, price, sum(size) FROM levels GROUP BY 1, 2 HAVING sum(size) <> 0
            """
        )
        return levels(tuple(row) for row in found.collect())


class Iceberg(PyArrow):
    def __init__(self, arguments):
        import iceberg
        from pyiceberg.catalog.sql import SqlCatalog

        super().__init__(arguments)
        folder = tempfile.mkdtemp(prefix="kalshi-iceberg-")
        self.catalog = SqlCatalog(
            "test", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}"
        )
        first = iceberg.register(self.archive, self.catalog, "kalshi")
        assert sum(first.values()) > 0, first
        again = iceberg.register(self.archive, self.catalog, "kalshi")
        assert sum(again.values()) == 0, again

    def table(self, name):
        return self.catalog.load_table(f"kalshi.{name}").scan().to_arrow()


ENGINES = {
    "duckdb": DuckDb, "pyarrow": PyArrow, "spark": Spark, "clickhouse": ClickHouse, "iceberg": Iceberg,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--facts", required=True)
    parser.add_argument("--engine", required=True, choices=ENGINES)
    parser.add_argument("--ddl")
    parser.add_argument("--endpoint")
    arguments = parser.parse_args()
    facts = json.loads(pathlib.Path(arguments.facts).read_text())
    engine = ENGINES[arguments.engine](arguments)
    problems = []
    for table, wanted in facts["tables"].items():
        count, sums = engine.facts(table, list(wanted["sums"]))
        if count != wanted["count"] or sums != wanted["sums"]:
            problems.append(f"{table}: {count} {sums} instead of {wanted}")
        print(f"{arguments.engine}: {table}: {count} rows")
    for book in facts["books"]:
        found = engine.book(book["ticker"], book["at"])
        if found != sorted(book["levels"]):
            problems.append(f"{book['ticker']} at {book['at']}: {found} instead of {book['levels']}")
    print(f"{arguments.engine}: {len(facts['books'])} books")
    for problem in problems:
        print(f"{arguments.engine}: {problem}", file=sys.stderr)
    sys.exit(2 if problems else 0)


if __name__ == "__main__":
    main()
