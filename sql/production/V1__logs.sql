-- Production: the union of what all gatherers recorded, each fact once. The same logs as a
-- gatherer's, with unique identities, and with the cursors that say how far each gatherer's logs
-- have been merged. Rows, heads and cursors move in one transaction.
--
-- All logs but market_lifecycle are range partitions by the time in their identity, in integer
-- microseconds. The deduplicator makes them ahead, makes one for a row that finds none, and drops those
-- past the retention; it has to own the tables. There is no default partition on purpose: to attach
-- another beside it PostgreSQL would lock and search it, and could detach none without blocking
-- readers. market_lifecycle is one table, since its identity holds no time.
--
-- A key that spans partitions must hold the time, so log_seq has an index of its own for those who
-- read by it; that it is unique and dense follows from the head, which moves with the rows.
--
-- Text in keys is compared byte by byte (COLLATE "C"): the rules of a language have no meaning for
-- tickers and cost most of the time of an insert.

CREATE TABLE writer (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch       bigint NOT NULL DEFAULT 0,
    holder      text   NOT NULL DEFAULT '',
    acquired_at timestamptz
);
COMMENT ON TABLE writer IS 'Which deduplicator may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';
INSERT INTO writer DEFAULT VALUES;

CREATE TABLE logs (
    name      text   PRIMARY KEY,
    log_id    uuid   NOT NULL DEFAULT gen_random_uuid(),
    head      bigint NOT NULL DEFAULT 0 CHECK (head >= 0),
    time_max  bigint NOT NULL DEFAULT 0,
    kept_from bigint
) WITH (fillfactor = 20);
COMMENT ON TABLE logs IS 'One row a log: its identity and its last committed log_seq.';
COMMENT ON COLUMN logs.time_max IS 'No committed row of the log has a later time: exchange_ts, or received_at of snapshots, or covered_from of coverage. Whoever appends raises it in the same transaction; a row above it is known to be new without a look into the table.';
COMMENT ON COLUMN logs.kept_from IS 'Rows with an earlier time were dropped by the retention; null when none were. No row below it is written any more: what was dropped can no longer be told from what is new.';
INSERT INTO logs (name) VALUES
    ('trades'), ('orderbook_deltas'), ('orderbook_snapshots'),
    ('tickers'), ('market_lifecycle'), ('coverage');

CREATE TABLE gatherers (
    gatherer_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE
);
COMMENT ON TABLE gatherers IS 'The gatherers that ever contributed, by the small number that rows carry.';

CREATE TABLE sync_cursors (
    gatherer    text   NOT NULL,
    table_name  text   NOT NULL,
    log_id      uuid   NOT NULL,
    position    bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    head        bigint NOT NULL DEFAULT 0,
    lag_rows    bigint GENERATED ALWAYS AS (greatest(head - position, 0)) STORED,
    lag_seconds double precision NOT NULL DEFAULT 0,
    past_retention bigint NOT NULL DEFAULT 0,
    synced_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gatherer, table_name, log_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE sync_cursors IS 'How far each log of each gatherer is merged. A rebuilt gatherer has a new log_id and so a new cursor, from 0.';
COMMENT ON COLUMN sync_cursors.position IS 'The last log_seq of that log whose row is in production.';
COMMENT ON COLUMN sync_cursors.head IS 'The log''s head when the cursor last moved.';
COMMENT ON COLUMN sync_cursors.lag_seconds IS 'Age of the newest row merged, by the gatherer''s clock, when the cursor last moved.';

COMMENT ON COLUMN sync_cursors.past_retention IS 'Rows of that log that came after their time had been dropped (logs.kept_from) and were not written.';

CREATE TABLE contributions (
    gatherer        text   NOT NULL,
    table_name      text   NOT NULL,
    hour            bigint NOT NULL,
    offered         bigint NOT NULL DEFAULT 0,
    duplicates      bigint NOT NULL DEFAULT 0,
    alone           bigint NOT NULL DEFAULT 0,
    alone_unwatched bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (table_name, hour, gatherer)
) WITH (fillfactor = 50);
COMMENT ON TABLE contributions IS 'What redundancy bought: which gatherer brought how many rows, and how many that no other had. Moves in the rows'' transaction. A row stands in alone from the moment one gatherer has brought it until another does, so the figures of an hour are exact when every gatherer''s cursor has passed it; offered - duplicates is what production has from that gatherer. Of orderbook_snapshots and coverage every row is the gatherer''s own.';
COMMENT ON COLUMN contributions.hour IS 'First microsecond of the hour of the row''s own time (its gatherer''s clock where it has none), since 1970 UTC.';
COMMENT ON COLUMN contributions.offered IS 'Rows read from that gatherer, without those of sync_cursors.past_retention.';
COMMENT ON COLUMN contributions.duplicates IS 'Of these, rows that production had, or got from another copy.';
COMMENT ON COLUMN contributions.alone IS 'Rows that this gatherer brought and no other so far.';
COMMENT ON COLUMN contributions.alone_unwatched IS 'Of alone, rows that came when too many others stood alone: were they brought by another later, nobody would notice. Alone is too high by this much at most.';

CREATE TABLE contributions_open (
    table_name text   NOT NULL,
    part       bigint NOT NULL,
    rows       bytea  NOT NULL,
    PRIMARY KEY (table_name, part)
);
ALTER TABLE contributions_open ALTER rows SET STORAGE EXTERNAL;
COMMENT ON TABLE contributions_open IS 'The rows that stand in contributions.alone and may still be brought by another, by hash; for the deduplicator alone.';
COMMENT ON COLUMN contributions_open.rows IS 'Records of 26 bytes, later parts over earlier ones: 16 of the identity''s hash, 2 of the gatherer (-1: no longer alone), 8 of the hour.';

CREATE TABLE consumers (
    name       text   NOT NULL,
    table_name text   NOT NULL REFERENCES logs (name),
    position   bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, table_name)
) WITH (fillfactor = 50);
COMMENT ON TABLE consumers IS 'Who reads production''s logs, and how far. The retention drops no partition with a row that a consumer registered here has not passed. A consumer moves its position by compare-and-set; one that is given up must be deleted here.';
COMMENT ON COLUMN consumers.position IS 'The last log_seq of the table that the consumer is done with.';

CREATE TABLE trades (
    log_seq        bigint   NOT NULL,
    trade_id       uuid     NOT NULL,
    exchange_ts    bigint   NOT NULL,
    received_at    bigint   NOT NULL,
    ticker         text COLLATE "C" NOT NULL,
    price          bigint   NOT NULL,
    no_price       bigint,
    size           bigint   NOT NULL,
    taker_side     boolean,
    is_block_trade boolean  NOT NULL,
    gatherer_id    smallint NOT NULL,
    PRIMARY KEY (trade_id, exchange_ts)
) PARTITION BY RANGE (exchange_ts);
CREATE INDEX trades_log_seq ON trades (log_seq);
CREATE INDEX trades_ticker_time ON trades (ticker, exchange_ts);
COMMENT ON TABLE trades IS 'Trades. Identity: trade_id; the time is in the key for the sake of partitions.';
COMMENT ON COLUMN trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN trades.received_at IS 'The clock of the gatherer whose copy came first.';
COMMENT ON COLUMN trades.price IS 'Price of the yes leg in micro-dollars.';
COMMENT ON COLUMN trades.no_price IS 'Price of the no leg in micro-dollars.';
COMMENT ON COLUMN trades.size IS 'Hundredths of a contract.';
COMMENT ON COLUMN trades.taker_side IS 'True: the taker is on yes.';
COMMENT ON COLUMN trades.gatherer_id IS 'Whose copy came first.';

CREATE TABLE orderbook_deltas (
    log_seq     bigint   NOT NULL,
    exchange_ts bigint   NOT NULL,
    received_at bigint   NOT NULL,
    ticker      text COLLATE "C" NOT NULL,
    side        boolean  NOT NULL,
    price       bigint   NOT NULL,
    size_delta  bigint   NOT NULL,
    occurrence  integer  NOT NULL,
    gatherer_id smallint NOT NULL,
    PRIMARY KEY (ticker, exchange_ts, side, price, size_delta, occurrence)
) PARTITION BY RANGE (exchange_ts);
CREATE INDEX orderbook_deltas_log_seq ON orderbook_deltas (log_seq);
COMMENT ON TABLE orderbook_deltas IS 'Signed changes of levels, each once: the multiset union of what the gatherers saw.';
COMMENT ON COLUMN orderbook_deltas.side IS 'True: the yes side.';
COMMENT ON COLUMN orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';
COMMENT ON COLUMN orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';
COMMENT ON COLUMN orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes: truly identical changes do occur.';

CREATE TABLE orderbook_snapshots (
    log_seq     bigint   NOT NULL,
    received_at bigint   NOT NULL,
    anchor_ts   bigint,
    ticker      text COLLATE "C" NOT NULL,
    source      text     NOT NULL,
    yes_prices  bigint[] NOT NULL,
    yes_sizes   bigint[] NOT NULL,
    no_prices   bigint[] NOT NULL,
    no_sizes    bigint[] NOT NULL,
    session_id  bigint   NOT NULL,
    sid         bigint   NOT NULL,
    seq         bigint   NOT NULL,
    gatherer_id smallint NOT NULL,
    PRIMARY KEY (gatherer_id, session_id, sid, seq, received_at)
) PARTITION BY RANGE (received_at);
CREATE INDEX orderbook_snapshots_log_seq ON orderbook_snapshots (log_seq);
CREATE INDEX orderbook_snapshots_ticker_anchor ON orderbook_snapshots (ticker, anchor_ts);
COMMENT ON TABLE orderbook_snapshots IS 'Full books, kept from every gatherer: each anchors that gatherer''s stream.';
COMMENT ON COLUMN orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';

CREATE TABLE tickers (
    log_seq              bigint NOT NULL,
    exchange_ts          bigint NOT NULL,
    received_at          bigint NOT NULL,
    ticker               text COLLATE "C" NOT NULL,
    last_price           bigint,
    yes_bid              bigint,
    yes_ask              bigint,
    yes_bid_size         bigint,
    yes_ask_size         bigint,
    last_trade_size      bigint,
    volume               bigint,
    open_interest        bigint,
    dollar_volume        bigint,
    dollar_open_interest bigint,
    content_hash         bigint NOT NULL,
    gatherer_id          smallint NOT NULL,
    PRIMARY KEY (ticker, exchange_ts, content_hash)
) PARTITION BY RANGE (exchange_ts);
CREATE INDEX tickers_log_seq ON tickers (log_seq);
COMMENT ON TABLE tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';

CREATE TABLE market_lifecycle (
    log_seq      bigint NOT NULL UNIQUE,
    subject      text COLLATE "C" NOT NULL,
    event_type   text COLLATE "C" NOT NULL,
    exchange_ts  bigint,
    received_at  bigint NOT NULL,
    payload      jsonb  NOT NULL,
    content_hash bigint NOT NULL,
    gatherer_id  smallint NOT NULL,
    PRIMARY KEY (subject, event_type, content_hash)
);
COMMENT ON TABLE market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';

CREATE TABLE coverage (
    log_seq           bigint NOT NULL,
    channel           text COLLATE "C" NOT NULL,
    ticker            text COLLATE "C" NOT NULL,
    covered_from      bigint NOT NULL,
    covered_to        bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts  bigint,
    records           bigint,
    ended_by          text   NOT NULL,
    detail            text   NOT NULL,
    session_id        bigint NOT NULL,
    sid               bigint NOT NULL,
    gatherer_id       smallint NOT NULL,
    PRIMARY KEY (gatherer_id, session_id, sid, channel, ticker, covered_from)
) PARTITION BY RANGE (covered_from);
CREATE INDEX coverage_log_seq ON coverage (log_seq);
CREATE INDEX coverage_ticker ON coverage (ticker, channel, covered_from);
COMMENT ON TABLE coverage IS 'Which gatherer saw which market without a hole, from when to when, and why that ended.';
