-- The logs of one gatherer. Every log is append-only and dense: its appender assigns
-- log_seq = head + 1, ... and commits the rows, the new head and the place reached in the journal
-- in one transaction, so a reader that polls by log_seq never steps over a row.

CREATE TABLE writer (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    gatherer_id text,
    epoch       bigint NOT NULL DEFAULT 0,
    holder      text   NOT NULL DEFAULT '',
    acquired_at timestamptz
);
COMMENT ON TABLE writer IS 'Who may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';
COMMENT ON COLUMN writer.gatherer_id IS 'The gatherer that this database belongs to; set once.';
COMMENT ON COLUMN writer.epoch IS 'Grows by one each time the lock is taken.';
COMMENT ON COLUMN writer.holder IS 'Process, host and start of the last holder, for people.';
INSERT INTO writer DEFAULT VALUES;

CREATE TABLE logs (
    name             text   PRIMARY KEY,
    log_id           uuid   NOT NULL DEFAULT gen_random_uuid(),
    head             bigint NOT NULL DEFAULT 0 CHECK (head >= 0),
    journal_id       uuid,
    journal_position bigint NOT NULL DEFAULT 0 CHECK (journal_position >= 0)
) WITH (fillfactor = 20);
COMMENT ON TABLE logs IS 'One row a log: its identity, its last committed log_seq, and how much of the journal is in it.';
COMMENT ON COLUMN logs.log_id IS 'Made with the database: a rebuilt one is a new log, which consumers read from 0.';
COMMENT ON COLUMN logs.head IS 'The last committed log_seq; 0 when empty.';
COMMENT ON COLUMN logs.journal_id IS 'The journal that journal_position counts in.';
COMMENT ON COLUMN logs.journal_position IS 'Every journal record before this place has its rows of this log committed.';
INSERT INTO logs (name) VALUES
    ('trades'), ('orderbook_deltas'), ('orderbook_snapshots'),
    ('tickers'), ('market_lifecycle'), ('coverage');

CREATE TABLE trades (
    log_seq        bigint  PRIMARY KEY,
    trade_id       uuid    NOT NULL,
    exchange_ts    bigint  NOT NULL,
    received_at    bigint  NOT NULL,
    ticker         text    NOT NULL,
    price          bigint  NOT NULL,
    no_price       bigint,
    size           bigint  NOT NULL,
    taker_side     boolean,
    is_block_trade boolean NOT NULL,
    session_id     bigint  NOT NULL,
    sid            bigint  NOT NULL,
    seq            bigint  NOT NULL
);
COMMENT ON TABLE trades IS 'Trades. Identity: trade_id.';
COMMENT ON COLUMN trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN trades.received_at IS 'Our clock when the frame left the socket, microseconds since 1970 UTC.';
COMMENT ON COLUMN trades.price IS 'Price of the yes leg in micro-dollars.';
COMMENT ON COLUMN trades.no_price IS 'Price of the no leg in micro-dollars.';
COMMENT ON COLUMN trades.size IS 'Hundredths of a contract.';
COMMENT ON COLUMN trades.taker_side IS 'True: the taker is on yes. Null: a value that we do not know; the frame is in the journal.';
COMMENT ON COLUMN trades.session_id IS 'Our connection: the microsecond at which it was opened.';

CREATE TABLE orderbook_deltas (
    log_seq     bigint  PRIMARY KEY,
    exchange_ts bigint  NOT NULL,
    received_at bigint  NOT NULL,
    ticker      text    NOT NULL,
    side        boolean NOT NULL,
    price       bigint  NOT NULL,
    size_delta  bigint  NOT NULL,
    occurrence  integer NOT NULL,
    session_id  bigint  NOT NULL,
    sid         bigint  NOT NULL,
    seq         bigint  NOT NULL
);
COMMENT ON TABLE orderbook_deltas IS 'Signed changes of levels. Identity: ticker, exchange_ts, side, price, size_delta, occurrence.';
COMMENT ON COLUMN orderbook_deltas.side IS 'True: the yes side.';
COMMENT ON COLUMN orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';
COMMENT ON COLUMN orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';
COMMENT ON COLUMN orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes in one stream: truly identical changes do occur.';

CREATE TABLE orderbook_snapshots (
    log_seq     bigint   PRIMARY KEY,
    received_at bigint   NOT NULL,
    anchor_ts   bigint,
    ticker      text     NOT NULL,
    source      text     NOT NULL,
    yes_prices  bigint[] NOT NULL,
    yes_sizes   bigint[] NOT NULL,
    no_prices   bigint[] NOT NULL,
    no_sizes    bigint[] NOT NULL,
    session_id  bigint   NOT NULL,
    sid         bigint   NOT NULL,
    seq         bigint   NOT NULL
);
COMMENT ON TABLE orderbook_snapshots IS 'Full books. Identity: gatherer, session_id, sid, seq.';
COMMENT ON COLUMN orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';
COMMENT ON COLUMN orderbook_snapshots.source IS 'ws or rest.';
COMMENT ON COLUMN orderbook_snapshots.yes_prices IS 'Micro-dollars, ascending; yes_sizes has the size of each.';
COMMENT ON COLUMN orderbook_snapshots.no_prices IS 'Micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.';

CREATE TABLE tickers (
    log_seq              bigint PRIMARY KEY,
    exchange_ts          bigint NOT NULL,
    received_at          bigint NOT NULL,
    ticker               text   NOT NULL,
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
    session_id           bigint NOT NULL,
    sid                  bigint NOT NULL
);
COMMENT ON TABLE tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';
COMMENT ON COLUMN tickers.volume IS 'Hundredths of a contract.';
COMMENT ON COLUMN tickers.dollar_volume IS 'Whole dollars, as the exchange sends it.';
COMMENT ON COLUMN tickers.content_hash IS 'Tells two updates of one millisecond apart.';

CREATE TABLE market_lifecycle (
    log_seq      bigint PRIMARY KEY,
    subject      text   NOT NULL,
    event_type   text   NOT NULL,
    exchange_ts  bigint,
    received_at  bigint NOT NULL,
    payload      jsonb  NOT NULL,
    content_hash bigint NOT NULL,
    session_id   bigint NOT NULL,
    sid          bigint NOT NULL,
    seq          bigint NOT NULL
);
COMMENT ON TABLE market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';
COMMENT ON COLUMN market_lifecycle.subject IS 'Ticker of the market or of the event.';
COMMENT ON COLUMN market_lifecycle.payload IS 'The whole message.';

CREATE TABLE coverage (
    log_seq           bigint PRIMARY KEY,
    channel           text   NOT NULL,
    ticker            text   NOT NULL,
    covered_from      bigint NOT NULL,
    covered_to        bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts  bigint,
    records           bigint,
    ended_by          text   NOT NULL,
    detail            text   NOT NULL,
    session_id        bigint NOT NULL,
    sid               bigint NOT NULL
);
COMMENT ON TABLE coverage IS 'Stretches in which a subscription was seen without a hole, written when they end. Identity: gatherer, session_id, sid, channel, ticker, covered_from.';
COMMENT ON COLUMN coverage.ticker IS 'The market; empty for a channel that covers all markets.';
COMMENT ON COLUMN coverage.covered_from IS 'Our clock at the frame that opened the stretch, microseconds since 1970 UTC.';
COMMENT ON COLUMN coverage.covered_to IS 'Our clock at the last frame or pong that proves it.';
COMMENT ON COLUMN coverage.first_exchange_ts IS 'The exchange''s clock at the first record of the market in the stretch.';
COMMENT ON COLUMN coverage.last_exchange_ts IS 'The exchange''s clock at the last one.';
COMMENT ON COLUMN coverage.records IS 'Records of the market in the stretch; null when a crash lost the count.';
COMMENT ON COLUMN coverage.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage or continues.';

CREATE TABLE coverage_open (
    session_id        bigint NOT NULL,
    sid               bigint NOT NULL,
    ticker            text   NOT NULL,
    channel           text   NOT NULL,
    covered_from      bigint NOT NULL,
    first_exchange_ts bigint,
    PRIMARY KEY (session_id, sid, ticker)
);
COMMENT ON TABLE coverage_open IS 'Not a log: the stretches still open at the coverage log''s journal_position, so that a restarted gatherer can close them.';
