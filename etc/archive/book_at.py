#!/usr/bin/env python3
"""A market's book at a moment, from the archive alone, with nothing but pyarrow.

    book_at.py ARCHIVE TICKER MOMENT
    book_at.py s3://bucket/prefix KXGOLD15M-26AUG050800-00 2026-08-05T11:50:00+00:00

The newest snapshot that is anchored at or before the moment, and the changes after its anchor: what
production's book_at does. Reads the days that it needs by their manifests, whose lists in v1/symlink
name each row's part exactly once.
"""

import datetime
import decimal
import sys

import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs


class Archive:
    """An archive in a bucket or a directory."""

    def __init__(self, url, filesystem=None):
        self.url = url.rstrip("/")
        if filesystem is None:
            filesystem, self.root = fs.FileSystem.from_uri(self.url)
        else:
            self.root = self.url.split("://", 1)[-1]
        self.filesystem = filesystem

    def days(self, table):
        """The days that a table has, the newest first."""
        folder = fs.FileSelector(f"{self.root}/v1/symlink/{table}", allow_not_found=True)
        found = self.filesystem.get_file_info(folder)
        return sorted((info.base_name.removeprefix("dt=") for info in found), reverse=True)

    def parts(self, table, day):
        """The paths of a day's parts."""
        name = f"{self.root}/v1/symlink/{table}/dt={day}/files.txt"
        with self.filesystem.open_input_stream(name) as file:
            lines = file.read().decode().splitlines()
        return [self.root + line.removeprefix(self.url) for line in lines]

    def rows(self, table, days, condition=None):
        """The rows of some days for which a condition holds."""
        parts = [part for day in days for part in self.parts(table, day)]
        if not parts:
            return []
        found = ds.dataset(parts, format="parquet", filesystem=self.filesystem)
        return found.to_table(filter=condition).to_pylist()

    def anchor(self, ticker, moment):
        """The newest snapshot that is anchored at or before a moment, or None."""
        for day in self.days("orderbook_snapshots"):
            if day > moment.date().isoformat():
                continue
            condition = (ds.field("ticker") == ticker) & (ds.field("anchor_ts") <= pc.scalar(moment))
            found = self.rows("orderbook_snapshots", [day], condition)
            if found:
                return max(found, key=lambda row: (row["anchor_ts"], row["log_seq"]))
        return None

    def book_at(self, ticker, moment):
        """Sizes by (side, price), true being yes; None when no snapshot is anchored before."""
        moment = moment.astimezone(datetime.timezone.utc)
        anchor = self.anchor(ticker, moment)
        if anchor is None:
            return None
        book = {}
        for side, name in ((True, "yes"), (False, "no")):
            for price, size in zip(anchor[f"{name}_prices"], anchor[f"{name}_sizes"]):
                book[side, price] = size
        first, last = anchor["anchor_ts"].date().isoformat(), moment.date().isoformat()
        days = [day for day in self.days("orderbook_deltas") if first <= day <= last]
        condition = (
            (ds.field("ticker") == ticker)
            & (ds.field("exchange_ts") > pc.scalar(anchor["anchor_ts"]))
            & (ds.field("exchange_ts") <= pc.scalar(moment))
        )
        for row in self.rows("orderbook_deltas", days, condition):
            level = row["side"], row["price"]
            book[level] = book.get(level, decimal.Decimal(0)) + row["size_delta"]
        return {level: size for level, size in book.items() if size}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    url, ticker, moment = sys.argv[1:]
    book = Archive(url).book_at(ticker, datetime.datetime.fromisoformat(moment))
    if book is None:
        sys.exit(f"no snapshot of {ticker} is anchored at or before {moment}")
    for side, price in sorted(book, key=lambda level: (not level[0], -level[1] if level[0] else level[1])):
        print(f"{'yes' if side else 'no':4}{price:>10}{book[side, price]:>16}")


if __name__ == "__main__":
    main()
