#!/usr/bin/env python3
"""Registers the archive's parts as Iceberg tables, without writing them anew.

    iceberg.py ARCHIVE [--catalog NAME] [--namespace NAMESPACE]
    iceberg.py s3://bucket/prefix --catalog glue

The catalogue is one of pyiceberg's configuration (~/.pyiceberg.yaml). Run it as often as wanted: what is
registered already stays, new parts are added, and small parts that became a large one are exchanged
for it in one commit, so that a reader sees each row once. Needs pyiceberg with pyarrow.
"""

import argparse

import pyarrow.parquet as pq
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import parquet_files_to_data_files

from book_at import Archive

TABLES = (
    "trades", "orderbook_deltas", "orderbook_snapshots", "tickers", "market_lifecycle", "coverage",
    "series", "events", "markets",
)


def address(archive, path):
    """A part's path as the catalogue keeps it."""
    return archive.url + path[len(archive.root):]


def register(archive, catalog, namespace):
    """Registers all tables; how many parts were added to or taken out of each."""
    catalog.create_namespace_if_not_exists(namespace)
    changed = {}
    for name in TABLES:
        parts = [part for day in archive.days(name) for part in archive.parts(name, day)]
        if parts:
            changed[name] = register_table(archive, catalog, f"{namespace}.{name}", parts)
    return changed


def register_table(archive, catalog, name, parts):
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        schema = pq.read_schema(parts[0], filesystem=archive.filesystem)
        table = catalog.create_table(name, schema=schema)
        # Parts carry no numbers of Iceberg's columns: they are found by their names.
        with table.transaction() as transaction:
            mapping = table.schema().name_mapping.model_dump_json()
            transaction.set_properties({"schema.name-mapping.default": mapping})
    wanted = {address(archive, part) for part in parts}
    known = {task.file.file_path: task.file for task in table.scan().plan_files()}
    added = sorted(wanted - known.keys())
    gone = [file for path, file in known.items() if path not in wanted]
    if gone:
        with table.transaction() as transaction:
            with transaction.update_snapshot().overwrite() as snapshot:
                for file in gone:
                    snapshot.delete_data_file(file)
                files = parquet_files_to_data_files(table.io, transaction.table_metadata, iter(added))
                for file in files:
                    snapshot.append_data_file(file)
    elif added:
        table.add_files(added)
    return len(added) + len(gone)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive")
    parser.add_argument("--catalog", default="default")
    parser.add_argument("--namespace", default="kalshi")
    arguments = parser.parse_args()
    catalog = load_catalog(arguments.catalog)
    for name, count in register(Archive(arguments.archive), catalog, arguments.namespace).items():
        print(f"{name}: {count} parts changed")


if __name__ == "__main__":
    main()
