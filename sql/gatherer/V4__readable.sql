-- For people: units, views, and what every column means.
--
-- Tables hold micro-dollars, hundredths of a contract and microseconds; the `_readable` views beside
-- them hold dollars, contracts and timestamps. A gatherer's logs have one index, by log_seq, because
-- every other would slow down the recording: bound log_seq in whatever is asked here, as the queries
-- in sql/queries/gatherer do. Titles, candles and books of a time are in production.

CREATE FUNCTION micros(moment timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (extract(epoch FROM moment - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint;
COMMENT ON FUNCTION micros(timestamptz) IS 'Microseconds since 1970 UTC, the form of all times in tables. Exact.';

CREATE FUNCTION moment(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(micros::double precision / 1000000);
COMMENT ON FUNCTION moment(bigint) IS 'The time that microseconds since 1970 UTC say. Exact to the microsecond from 1900 to 2100.';

CREATE FUNCTION dollars(micro_dollars bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN micro_dollars * 0.000001;
COMMENT ON FUNCTION dollars(bigint) IS 'Dollars, with 6 decimals, of micro-dollars, the form of all prices in tables. Exact.';

CREATE FUNCTION contracts(hundredths bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN hundredths * 0.01;
COMMENT ON FUNCTION contracts(bigint) IS 'Contracts, with 2 decimals, of hundredths of a contract, the form of all sizes in tables. Exact.';

CREATE FUNCTION yes_no(is_yes boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN is_yes THEN 'yes' WHEN NOT is_yes THEN 'no' END;
COMMENT ON FUNCTION yes_no(boolean) IS 'yes, no, or null, of a side as tables have it.';

CREATE VIEW trades_readable AS
SELECT t.log_seq,
       moment(t.exchange_ts) AS exchange_time,
       moment(t.received_at) AS received_time,
       t.ticker,
       dollars(t.price) AS price_dollars,
       dollars(t.no_price) AS no_price_dollars,
       contracts(t.size) AS contracts,
       yes_no(t.taker_side) AS taker,
       t.is_block_trade,
       t.trade_id,
       w.gatherer_id AS gatherer,
       moment(t.session_id) AS session_opened,
       t.sid,
       t.seq,
       t.exchange_ts,
       t.received_at
FROM trades t CROSS JOIN writer w;
COMMENT ON VIEW trades_readable IS 'Trades in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

CREATE VIEW orderbook_deltas_readable AS
SELECT d.log_seq,
       moment(d.exchange_ts) AS exchange_time,
       moment(d.received_at) AS received_time,
       d.ticker,
       yes_no(d.side) AS side,
       dollars(d.price) AS price_dollars,
       contracts(d.size_delta) AS contracts_delta,
       d.occurrence,
       w.gatherer_id AS gatherer,
       moment(d.session_id) AS session_opened,
       d.sid,
       d.seq,
       d.exchange_ts,
       d.received_at
FROM orderbook_deltas d CROSS JOIN writer w;
COMMENT ON VIEW orderbook_deltas_readable IS 'Changes of levels in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

CREATE VIEW orderbook_snapshots_readable AS
SELECT b.log_seq,
       moment(b.anchor_ts) AS anchor_time,
       moment(b.received_at) AS received_time,
       b.ticker,
       b.source,
       (SELECT dollars(max(p)) FROM unnest(b.yes_prices) AS u (p)) AS bid_dollars,
       (SELECT dollars(min(p)) FROM unnest(b.no_prices) AS u (p)) AS ask_dollars,
       ARRAY(SELECT dollars(p) FROM unnest(b.yes_prices) WITH ORDINALITY AS u (p, n) ORDER BY n)
           AS yes_dollars,
       ARRAY(SELECT contracts(q) FROM unnest(b.yes_sizes) WITH ORDINALITY AS u (q, n) ORDER BY n)
           AS yes_contracts,
       ARRAY(SELECT dollars(p) FROM unnest(b.no_prices) WITH ORDINALITY AS u (p, n) ORDER BY n)
           AS no_dollars,
       ARRAY(SELECT contracts(q) FROM unnest(b.no_sizes) WITH ORDINALITY AS u (q, n) ORDER BY n)
           AS no_contracts,
       w.gatherer_id AS gatherer,
       moment(b.session_id) AS session_opened,
       b.sid,
       b.seq,
       b.anchor_ts,
       b.received_at
FROM orderbook_snapshots b CROSS JOIN writer w;
COMMENT ON VIEW orderbook_snapshots_readable IS 'Full books in dollars, contracts and timestamps, with the best prices. Bound log_seq: only it uses the index.';

CREATE VIEW tickers_readable AS
SELECT t.log_seq,
       moment(t.exchange_ts) AS exchange_time,
       moment(t.received_at) AS received_time,
       t.ticker,
       dollars(t.yes_bid) AS bid_dollars,
       contracts(t.yes_bid_size) AS bid_contracts,
       dollars(t.yes_ask) AS ask_dollars,
       contracts(t.yes_ask_size) AS ask_contracts,
       dollars(t.last_price) AS last_price_dollars,
       contracts(t.last_trade_size) AS last_trade_contracts,
       contracts(t.volume) AS volume_contracts,
       contracts(t.open_interest) AS open_interest_contracts,
       t.dollar_volume,
       t.dollar_open_interest,
       w.gatherer_id AS gatherer,
       moment(t.session_id) AS session_opened,
       t.sid,
       t.exchange_ts,
       t.received_at
FROM tickers t CROSS JOIN writer w;
COMMENT ON VIEW tickers_readable IS 'Quotes and totals as the ticker channel says them, in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

CREATE VIEW market_lifecycle_readable AS
SELECT l.log_seq,
       moment(l.exchange_ts) AS exchange_time,
       moment(l.received_at) AS received_time,
       l.subject,
       l.event_type,
       l.payload,
       w.gatherer_id AS gatherer,
       moment(l.session_id) AS session_opened,
       l.sid,
       l.seq,
       l.exchange_ts,
       l.received_at
FROM market_lifecycle l CROSS JOIN writer w;
COMMENT ON VIEW market_lifecycle_readable IS 'Lifecycle messages of markets and events with timestamps. Bound log_seq: only it uses the index.';

CREATE VIEW coverage_readable AS
SELECT c.log_seq,
       c.channel,
       c.ticker,
       w.gatherer_id AS gatherer,
       moment(c.covered_from) AS seen_from,
       moment(c.covered_to) AS seen_to,
       (c.covered_to - c.covered_from) * 0.000001 AS seconds,
       moment(c.first_exchange_ts) AS first_exchange_time,
       moment(c.last_exchange_ts) AS last_exchange_time,
       c.records,
       c.ended_by,
       c.detail,
       moment(c.session_id) AS session_opened,
       c.sid,
       c.covered_from,
       c.covered_to
FROM coverage c CROSS JOIN writer w;
COMMENT ON VIEW coverage_readable IS 'What was seen without a hole, with timestamps. Bound log_seq: only it uses the index.';

-- What every table, column and view says of itself in psql's \d+, with unit and source. A name means
-- the same everywhere, so what is said of it is written once; '%' is for whatever has no words of its
-- own. Comments that are there already stay.

DO $$
DECLARE
    -- Nobody else's tables, should there be any.
    ours constant text[] := ARRAY[
        'trades', 'orderbook_deltas', 'orderbook_snapshots', 'tickers', 'market_lifecycle', 'coverage',
        'trades_readable', 'orderbook_deltas_readable', 'orderbook_snapshots_readable',
        'tickers_readable', 'market_lifecycle_readable', 'coverage_readable',
        'writer', 'logs', 'coverage_open', 'consumers',
        'refinery_schema_history'
    ];
    rule record;
    place record;
BEGIN
    FOR rule IN
        SELECT * FROM (VALUES
            ('writer', 'singleton', 'Always true: the table has one row.'),
            ('writer', 'epoch', 'Grows by one each time the lock is taken.'),
            ('writer', 'holder', 'Process, host and start of the last holder, for people.'),
            ('writer', 'acquired_at', 'When the last holder took the lock, by the database''s clock.'),
            ('logs', 'name', 'The log, which is the name of its table.'),
            ('logs', 'log_id', 'Made with the database: consumers of a rebuilt one begin at 0.'),
            ('logs', 'head', 'The last committed log_seq, and so the number of rows ever written; 0 when empty.'),
            ('consumers', 'name', 'The consumer''s own name.'),
            ('consumers', 'table_name', 'The log, by the name of its table.'),
            ('consumers', 'moved_at', 'When its position last rose, by this database''s clock.'),
            ('coverage_open', 'ticker', 'The market; empty for a channel that covers all markets.'),
            ('coverage_open', 'covered_from', 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.'),
            ('coverage_open', 'first_exchange_ts', 'The exchange''s clock at the first record in the stretch, microseconds since 1970 UTC; null before it.'),
            ('trades', 'trade_id', 'The exchange''s identity of the trade.'),
            ('trades', 'is_block_trade', 'True: agreed beside the book, which it does not touch.'),
            ('trades_readable', 'price_dollars', 'Price of the yes leg in dollars.'),
            ('trades_readable', 'no_price_dollars', 'Price of the no leg in dollars; the two make up what the contract pays.'),
            ('trades_readable', 'contracts', 'Size in contracts.'),
            ('trades_readable', 'taker', 'The outcome that the taker is on: yes or no; null when the exchange named another.'),
            ('orderbook_deltas_readable', 'side', 'yes or no.'),
            ('orderbook_deltas_readable', 'price_dollars', 'Price of the level in dollars, in yes-leg terms on both sides.'),
            ('orderbook_deltas_readable', 'contracts_delta', 'Signed change of the level''s size, in contracts.'),
            ('orderbook_snapshots', 'source', 'ws: from the stream. rest: polled beside it, without a place in it and so without an anchor.'),
            ('orderbook_snapshots', 'yes_prices', 'Bids for yes: prices in micro-dollars, ascending; yes_sizes has the size of each.'),
            ('orderbook_snapshots', 'yes_sizes', 'Hundredths of a contract at each of yes_prices.'),
            ('orderbook_snapshots', 'no_prices', 'Bids for no, which ask for yes: prices in micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.'),
            ('orderbook_snapshots', 'no_sizes', 'Hundredths of a contract at each of no_prices.'),
            ('orderbook_snapshots_readable', 'yes_dollars', 'Bids for yes: prices in dollars, ascending.'),
            ('orderbook_snapshots_readable', 'yes_contracts', 'Contracts at each of yes_dollars.'),
            ('orderbook_snapshots_readable', 'no_dollars', 'Bids for no, which ask for yes: prices in dollars in yes-leg terms, ascending.'),
            ('orderbook_snapshots_readable', 'no_contracts', 'Contracts at each of no_dollars.'),
            ('tickers', 'exchange_ts', 'The exchange''s clock when it made the message, microseconds since 1970 UTC.'),
            ('tickers', 'last_price', 'Price of the last trade in micro-dollars of the yes leg; null before the first.'),
            ('tickers', 'yes_bid', 'Best bid for yes in micro-dollars; null when there is none.'),
            ('tickers', 'yes_ask', 'Best ask for yes in micro-dollars; null when there is none.'),
            ('tickers', 'yes_bid_size', 'Hundredths of a contract at the best bid.'),
            ('tickers', 'yes_ask_size', 'Hundredths of a contract at the best ask.'),
            ('tickers', 'last_trade_size', 'Hundredths of a contract in the last trade.'),
            ('tickers', 'volume', 'Hundredths of contracts traded so far.'),
            ('tickers', 'open_interest', 'Hundredths of contracts that are open.'),
            ('tickers', 'content_hash', 'Of the message''s figures: tells two messages of one millisecond apart.'),
            ('tickers_readable', 'bid_contracts', 'Contracts at the best bid.'),
            ('tickers_readable', 'ask_contracts', 'Contracts at the best ask.'),
            ('tickers_readable', 'last_trade_contracts', 'Contracts in the last trade.'),
            ('market_lifecycle', 'content_hash', 'Of the payload: a message that says something else is another.'),
            ('coverage', 'ticker', 'The market; empty for a channel that covers all markets.'),
            ('coverage_readable', 'ticker', 'The market; empty for a channel that covers all markets.'),
            ('coverage', 'covered_from', 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.'),
            ('coverage', 'covered_to', 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.'),
            ('coverage', 'first_exchange_ts', 'The exchange''s clock at the first record of the market in the stretch, microseconds since 1970 UTC; null without one.'),
            ('coverage', 'last_exchange_ts', 'The exchange''s clock at the last one, microseconds since 1970 UTC: between the two, nothing is missing.'),
            ('coverage_readable', 'seconds', 'How long the stretch is, in seconds.'),
            ('%', 'log_seq', 'The row''s place in the log: dense, from 1, in order of commit.'),
            ('%', 'exchange_ts', 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.'),
            ('%', 'received_at', 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.'),
            ('%', 'anchor_ts', 'The book after all deltas with exchange_ts <= anchor_ts equals this one; microseconds since 1970 UTC, by the exchange''s clock; null when it has no such place.'),
            ('%', 'covered_from', 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.'),
            ('%', 'covered_to', 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.'),
            ('%', 'ticker', 'The exchange''s name of the market.'),
            ('%', 'gatherer', 'The gatherer that this database belongs to.'),
            ('%', 'session_id', 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.'),
            ('%', 'session_opened', 'When the gatherer''s connection was opened, by its clock; names the connection.'),
            ('%', 'sid', 'The exchange''s number of the subscription within the connection; 0 for what REST showed.'),
            ('%', 'seq', 'The exchange''s number of the frame within the subscription.'),
            ('%', 'occurrence', 'Ordinal, from 1, among identical changes: truly identical changes do occur.'),
            ('%', 'is_block_trade', 'True: agreed beside the book, which it does not touch.'),
            ('%', 'trade_id', 'The exchange''s identity of the trade.'),
            ('%', 'source', 'ws: from the stream. rest: polled beside it, without an anchor.'),
            ('%', 'dollar_volume', 'Whole dollars traded so far, as the exchange sends it.'),
            ('%', 'dollar_open_interest', 'Whole dollars in open contracts, as the exchange sends it.'),
            ('%', 'subject', 'Ticker of the market or of the event.'),
            ('%', 'event_type', 'What happened, as the exchange names it (created, activated, determined, settled, ...).'),
            ('%', 'payload', 'The whole message.'),
            ('%', 'channel', 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...'),
            ('%', 'records', 'Records of the market, or of the channel, in the stretch; null when a crash lost the count.'),
            ('%', 'ended_by', 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage, or continues: nothing ended, a long stretch is cut each hour.'),
            ('%', 'detail', 'Why it ended, for people.'),
            ('%', 'exchange_time', 'The exchange''s clock; null where the message has no time.'),
            ('%', 'received_time', 'The gatherer''s clock when the frame left the socket.'),
            ('%', 'anchor_time', 'The book after all changes up to this time of the exchange equals this one; null when it has no such place.'),
            ('%', 'first_exchange_time', 'The exchange''s clock at the first record in the stretch; null without one.'),
            ('%', 'last_exchange_time', 'The exchange''s clock at the last one: between the two, nothing is missing.'),
            ('%', 'seen_from', 'The gatherer''s clock at the frame that opened the stretch.'),
            ('%', 'seen_to', 'The gatherer''s clock at the last frame or pong that proves it.'),
            ('%', 'bid_dollars', 'Best bid for yes in dollars; null when there is none.'),
            ('%', 'ask_dollars', 'Best ask for yes in dollars; null when there is none.'),
            ('%', 'last_price_dollars', 'Price of the last trade in dollars of the yes leg.'),
            ('%', 'volume_contracts', 'Contracts traded so far.'),
            ('%', 'open_interest_contracts', 'Contracts that are open.'),
            ('refinery_schema_history', 'version', 'Number of the migration.'),
            ('refinery_schema_history', 'name', 'Its name.'),
            ('refinery_schema_history', 'applied_on', 'When it was applied, RFC 3339.'),
            ('refinery_schema_history', 'checksum', 'Of its file as it was applied: a file that was edited since is refused.')
        ) AS r (relation, attribute, words)
    LOOP
        FOR place IN
            SELECT c.oid::regclass AS relation
            FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = rule.attribute
            WHERE c.relnamespace = 'public'::regnamespace
              AND c.relname = ANY (ours) AND a.attnum > 0 AND NOT a.attisdropped
              AND c.relname LIKE rule.relation AND col_description(c.oid, a.attnum) IS NULL
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', place.relation, rule.attribute, rule.words);
        END LOOP;
    END LOOP;
    IF obj_description(to_regclass('public.refinery_schema_history'), 'pg_class') IS NULL
       AND to_regclass('public.refinery_schema_history') IS NOT NULL THEN
        COMMENT ON TABLE refinery_schema_history IS 'The migrations that made this database what it is, in order; kalshi migrate --status shows them.';
    END IF;
    -- The unit of times whose comment leaves it to the head of an earlier migration.
    FOR place IN
        SELECT c.oid::regclass AS relation, a.attname AS attribute,
               col_description(c.oid, a.attnum) AS words
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace
          AND c.relname = ANY (ours) AND a.attnum > 0 AND a.atttypid = 'bigint'::regtype
          AND a.attname ~ '(_ts|_at|_from|_to|_until|_ended|time_max)$'
          AND col_description(c.oid, a.attnum) !~* 'microsecond|log_seq'
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', place.relation, place.attribute,
                       place.words || ' Microseconds since 1970 UTC.');
    END LOOP;
END
$$;

-- Whoever may read the tables may read the views. The roles may be made later or elsewhere.
DO $$
DECLARE
    reader text;
    view_name text;
BEGIN
    FOR reader IN
        SELECT rolname FROM pg_roles WHERE rolname IN ('gatherer', 'dedup_reader')
    LOOP
        FOREACH view_name IN ARRAY ARRAY[
            'trades_readable', 'orderbook_deltas_readable', 'orderbook_snapshots_readable',
            'tickers_readable', 'market_lifecycle_readable', 'coverage_readable'
        ] LOOP
            EXECUTE format('GRANT SELECT ON %I TO %I', view_name, reader);
        END LOOP;
    END LOOP;
END
$$;
