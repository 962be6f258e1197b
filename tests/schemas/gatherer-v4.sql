
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE FUNCTION public.consumer_passed(name text, table_name text, "position" bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $_$
DECLARE
    log_head bigint := (SELECT l.head FROM logs l WHERE l.name = $2);
BEGIN
    IF log_head IS NULL THEN
        RAISE EXCEPTION 'there is no log %', $2;
    ELSIF $3 > log_head THEN
        RAISE EXCEPTION 'consumer % of % is said to have passed row %, and the log ends at %',
            $1, $2, $3, log_head;
    END IF;
    INSERT INTO consumers AS c VALUES ($1, $2, $3)
    ON CONFLICT ON CONSTRAINT consumers_pkey DO UPDATE
    SET position = excluded.position, moved_at = now() WHERE c.position < excluded.position;
END
$_$;

ALTER FUNCTION public.consumer_passed(name text, table_name text, "position" bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.consumer_passed(name text, table_name text, "position" bigint) IS 'Notes that a consumer has every row of a log up to a position. A lower position than the one that is noted changes nothing.';

CREATE FUNCTION public.contracts(hundredths bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((hundredths)::numeric * 0.01);

ALTER FUNCTION public.contracts(hundredths bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.contracts(hundredths bigint) IS 'Contracts, with 2 decimals, of hundredths of a contract, the form of all sizes in tables. Exact.';

CREATE FUNCTION public.dollars(micro_dollars bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((micro_dollars)::numeric * 0.000001);

ALTER FUNCTION public.dollars(micro_dollars bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.dollars(micro_dollars bigint) IS 'Dollars, with 6 decimals, of micro-dollars, the form of all prices in tables. Exact.';

CREATE FUNCTION public.micros(moment timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((EXTRACT(epoch FROM (moment - '1970-01-01 00:00:00+00'::timestamp with time zone)) * (1000000)::numeric))::bigint;

ALTER FUNCTION public.micros(moment timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.micros(moment timestamp with time zone) IS 'Microseconds since 1970 UTC, the form of all times in tables. Exact.';

CREATE FUNCTION public.moment(micros bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(((micros)::double precision / (1000000)::double precision));

ALTER FUNCTION public.moment(micros bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.moment(micros bigint) IS 'The time that microseconds since 1970 UTC say. Exact to the microsecond from 1900 to 2100.';

CREATE FUNCTION public.yes_no(is_yes boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN is_yes THEN 'yes'::text WHEN (NOT is_yes) THEN 'no'::text ELSE NULL::text END;

ALTER FUNCTION public.yes_no(is_yes boolean) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.yes_no(is_yes boolean) IS 'yes, no, or null, of a side as tables have it.';

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.consumers (
    name text NOT NULL,
    table_name text NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT consumers_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT consumers_position_check CHECK (("position" >= 0))
);

ALTER TABLE public.consumers OWNER TO kalshi_owner;

COMMENT ON TABLE public.consumers IS 'Who reads the logs, and how far each is. Retention drops no row of a log that one of these has not passed. Written by consumer_passed alone. Whoever gives a consumer up deletes its rows (DELETE FROM consumers WHERE name = ...), else its rows are kept for ever; without any row here, age alone decides.';

COMMENT ON COLUMN public.consumers.name IS 'The consumer''s own name.';

COMMENT ON COLUMN public.consumers.table_name IS 'The log, by the name of its table.';

COMMENT ON COLUMN public.consumers."position" IS 'Every row of the log up to this log_seq is durable with the consumer.';

COMMENT ON COLUMN public.consumers.moved_at IS 'When its position last rose, by this database''s clock.';

CREATE TABLE public.coverage (
    log_seq bigint NOT NULL,
    channel text NOT NULL,
    ticker text NOT NULL,
    covered_from bigint NOT NULL,
    covered_to bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts bigint,
    records bigint,
    ended_by text NOT NULL,
    detail text NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.coverage OWNER TO kalshi_owner;

COMMENT ON TABLE public.coverage IS 'Stretches in which a subscription was seen without a hole, written when they end. Identity: gatherer, session_id, sid, channel, ticker, covered_from.';

COMMENT ON COLUMN public.coverage.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.coverage.channel IS 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...';

COMMENT ON COLUMN public.coverage.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage.covered_from IS 'Our clock at the frame that opened the stretch, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.covered_to IS 'Our clock at the last frame or pong that proves it. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.first_exchange_ts IS 'The exchange''s clock at the first record of the market in the stretch. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.last_exchange_ts IS 'The exchange''s clock at the last one. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.records IS 'Records of the market in the stretch; null when a crash lost the count.';

COMMENT ON COLUMN public.coverage.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage or continues.';

COMMENT ON COLUMN public.coverage.detail IS 'Why it ended, for people.';

COMMENT ON COLUMN public.coverage.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.coverage.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

CREATE TABLE public.coverage_0 (
    log_seq bigint NOT NULL,
    channel text NOT NULL,
    ticker text NOT NULL,
    covered_from bigint NOT NULL,
    covered_to bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts bigint,
    records bigint,
    ended_by text NOT NULL,
    detail text NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL
);

ALTER TABLE public.coverage_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.coverage_0 IS 'Rows of coverage from 0 to 10000000, which is not in it.';

COMMENT ON COLUMN public.coverage_0.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage_0.covered_from IS 'Our clock at the frame that opened the stretch, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage_0.covered_to IS 'Our clock at the last frame or pong that proves it.';

COMMENT ON COLUMN public.coverage_0.first_exchange_ts IS 'The exchange''s clock at the first record of the market in the stretch.';

COMMENT ON COLUMN public.coverage_0.last_exchange_ts IS 'The exchange''s clock at the last one.';

COMMENT ON COLUMN public.coverage_0.records IS 'Records of the market in the stretch; null when a crash lost the count.';

COMMENT ON COLUMN public.coverage_0.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage or continues.';

CREATE TABLE public.coverage_open (
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    ticker text NOT NULL,
    channel text NOT NULL,
    covered_from bigint NOT NULL,
    first_exchange_ts bigint
);

ALTER TABLE public.coverage_open OWNER TO kalshi_owner;

COMMENT ON TABLE public.coverage_open IS 'Not a log: the stretches still open at the coverage log''s journal_position, so that a restarted gatherer can close them.';

COMMENT ON COLUMN public.coverage_open.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.coverage_open.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.coverage_open.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage_open.channel IS 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...';

COMMENT ON COLUMN public.coverage_open.covered_from IS 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage_open.first_exchange_ts IS 'The exchange''s clock at the first record in the stretch, microseconds since 1970 UTC; null before it.';

CREATE TABLE public.writer (
    singleton boolean DEFAULT true NOT NULL,
    gatherer_id text,
    epoch bigint DEFAULT 0 NOT NULL,
    holder text DEFAULT ''::text NOT NULL,
    acquired_at timestamp with time zone,
    CONSTRAINT writer_singleton_check CHECK (singleton)
);

ALTER TABLE public.writer OWNER TO kalshi_owner;

COMMENT ON TABLE public.writer IS 'Who may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';

COMMENT ON COLUMN public.writer.singleton IS 'Always true: the table has one row.';

COMMENT ON COLUMN public.writer.gatherer_id IS 'The gatherer that this database belongs to; set once.';

COMMENT ON COLUMN public.writer.epoch IS 'Grows by one each time the lock is taken.';

COMMENT ON COLUMN public.writer.holder IS 'Process, host and start of the last holder, for people.';

COMMENT ON COLUMN public.writer.acquired_at IS 'When the last holder took the lock, by the database''s clock.';

CREATE VIEW public.coverage_readable AS
 SELECT c.log_seq,
    c.channel,
    c.ticker,
    w.gatherer_id AS gatherer,
    public.moment(c.covered_from) AS seen_from,
    public.moment(c.covered_to) AS seen_to,
    (((c.covered_to - c.covered_from))::numeric * 0.000001) AS seconds,
    public.moment(c.first_exchange_ts) AS first_exchange_time,
    public.moment(c.last_exchange_ts) AS last_exchange_time,
    c.records,
    c.ended_by,
    c.detail,
    public.moment(c.session_id) AS session_opened,
    c.sid,
    c.covered_from,
    c.covered_to
   FROM (public.coverage c
     CROSS JOIN public.writer w);

ALTER TABLE public.coverage_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.coverage_readable IS 'What was seen without a hole, with timestamps. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.coverage_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.coverage_readable.channel IS 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...';

COMMENT ON COLUMN public.coverage_readable.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.coverage_readable.seen_from IS 'The gatherer''s clock at the frame that opened the stretch.';

COMMENT ON COLUMN public.coverage_readable.seen_to IS 'The gatherer''s clock at the last frame or pong that proves it.';

COMMENT ON COLUMN public.coverage_readable.seconds IS 'How long the stretch is, in seconds.';

COMMENT ON COLUMN public.coverage_readable.first_exchange_time IS 'The exchange''s clock at the first record in the stretch; null without one.';

COMMENT ON COLUMN public.coverage_readable.last_exchange_time IS 'The exchange''s clock at the last one: between the two, nothing is missing.';

COMMENT ON COLUMN public.coverage_readable.records IS 'Records of the market, or of the channel, in the stretch; null when a crash lost the count.';

COMMENT ON COLUMN public.coverage_readable.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage, or continues: nothing ended, a long stretch is cut each hour.';

COMMENT ON COLUMN public.coverage_readable.detail IS 'Why it ended, for people.';

COMMENT ON COLUMN public.coverage_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.coverage_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.coverage_readable.covered_from IS 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage_readable.covered_to IS 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.';

CREATE TABLE public.logs (
    name text NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    head bigint DEFAULT 0 NOT NULL,
    journal_id uuid,
    journal_position bigint DEFAULT 0 NOT NULL,
    kept_from bigint DEFAULT 1 NOT NULL,
    chunk_rows bigint DEFAULT 1000000 NOT NULL,
    CONSTRAINT logs_chunk_rows_check CHECK ((chunk_rows > 0)),
    CONSTRAINT logs_head_check CHECK ((head >= 0)),
    CONSTRAINT logs_journal_position_check CHECK ((journal_position >= 0)),
    CONSTRAINT logs_kept_from_check CHECK ((kept_from >= 1))
)
WITH (fillfactor='20');

ALTER TABLE public.logs OWNER TO kalshi_owner;

COMMENT ON TABLE public.logs IS 'One row a log: its identity, its last committed log_seq, and how much of the journal is in it.';

COMMENT ON COLUMN public.logs.name IS 'The log, which is the name of its table.';

COMMENT ON COLUMN public.logs.log_id IS 'Made with the database: a rebuilt one is a new log, which consumers read from 0.';

COMMENT ON COLUMN public.logs.head IS 'The last committed log_seq; 0 when empty.';

COMMENT ON COLUMN public.logs.journal_id IS 'The journal that journal_position counts in.';

COMMENT ON COLUMN public.logs.journal_position IS 'Every journal record before this place has its rows of this log committed.';

COMMENT ON COLUMN public.logs.kept_from IS 'The first log_seq that is kept: rows before it were dropped by the retention. A consumer that stands before it has missed what lies between.';

COMMENT ON COLUMN public.logs.chunk_rows IS 'How many rows a chunk or partition made from now on holds: some hours of a busy log. Rows are dropped by whole chunks, never the one that is being written.';

CREATE TABLE public.market_lifecycle (
    log_seq bigint NOT NULL,
    subject text NOT NULL,
    event_type text NOT NULL,
    exchange_ts bigint,
    received_at bigint NOT NULL,
    payload jsonb NOT NULL,
    content_hash bigint NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.market_lifecycle OWNER TO kalshi_owner;

COMMENT ON TABLE public.market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';

COMMENT ON COLUMN public.market_lifecycle.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.market_lifecycle.subject IS 'Ticker of the market or of the event.';

COMMENT ON COLUMN public.market_lifecycle.event_type IS 'What happened, as the exchange names it (created, activated, determined, settled, ...).';

COMMENT ON COLUMN public.market_lifecycle.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_lifecycle.payload IS 'The whole message.';

COMMENT ON COLUMN public.market_lifecycle.content_hash IS 'Of the payload: a message that says something else is another.';

COMMENT ON COLUMN public.market_lifecycle.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.market_lifecycle.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.market_lifecycle.seq IS 'The exchange''s number of the frame within the subscription.';

CREATE TABLE public.market_lifecycle_0 (
    log_seq bigint NOT NULL,
    subject text NOT NULL,
    event_type text NOT NULL,
    exchange_ts bigint,
    received_at bigint NOT NULL,
    payload jsonb NOT NULL,
    content_hash bigint NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
);

ALTER TABLE public.market_lifecycle_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.market_lifecycle_0 IS 'Rows of market_lifecycle from 0 to 1000000, which is not in it.';

COMMENT ON COLUMN public.market_lifecycle_0.subject IS 'Ticker of the market or of the event.';

COMMENT ON COLUMN public.market_lifecycle_0.payload IS 'The whole message.';

CREATE VIEW public.market_lifecycle_readable AS
 SELECT l.log_seq,
    public.moment(l.exchange_ts) AS exchange_time,
    public.moment(l.received_at) AS received_time,
    l.subject,
    l.event_type,
    l.payload,
    w.gatherer_id AS gatherer,
    public.moment(l.session_id) AS session_opened,
    l.sid,
    l.seq,
    l.exchange_ts,
    l.received_at
   FROM (public.market_lifecycle l
     CROSS JOIN public.writer w);

ALTER TABLE public.market_lifecycle_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.market_lifecycle_readable IS 'Lifecycle messages of markets and events with timestamps. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.market_lifecycle_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.market_lifecycle_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle_readable.received_time IS 'The gatherer''s clock when the frame left the socket.';

COMMENT ON COLUMN public.market_lifecycle_readable.subject IS 'Ticker of the market or of the event.';

COMMENT ON COLUMN public.market_lifecycle_readable.event_type IS 'What happened, as the exchange names it (created, activated, determined, settled, ...).';

COMMENT ON COLUMN public.market_lifecycle_readable.payload IS 'The whole message.';

COMMENT ON COLUMN public.market_lifecycle_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.market_lifecycle_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.market_lifecycle_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.market_lifecycle_readable.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.market_lifecycle_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle_readable.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

CREATE TABLE public.orderbook_deltas (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    side boolean NOT NULL,
    price bigint NOT NULL,
    size_delta bigint NOT NULL,
    occurrence integer NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.orderbook_deltas OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_deltas IS 'Signed changes of levels. Identity: ticker, exchange_ts, side, price, size_delta, occurrence.';

COMMENT ON COLUMN public.orderbook_deltas.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_deltas.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.orderbook_deltas.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_deltas.side IS 'True: the yes side.';

COMMENT ON COLUMN public.orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';

COMMENT ON COLUMN public.orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';

COMMENT ON COLUMN public.orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes in one stream: truly identical changes do occur.';

COMMENT ON COLUMN public.orderbook_deltas.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.orderbook_deltas.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_deltas.seq IS 'The exchange''s number of the frame within the subscription.';

CREATE TABLE public.orderbook_deltas_0 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    side boolean NOT NULL,
    price bigint NOT NULL,
    size_delta bigint NOT NULL,
    occurrence integer NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
);

ALTER TABLE public.orderbook_deltas_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_deltas_0 IS 'Rows of orderbook_deltas from 0 to 50000000, which is not in it.';

COMMENT ON COLUMN public.orderbook_deltas_0.side IS 'True: the yes side.';

COMMENT ON COLUMN public.orderbook_deltas_0.price IS 'Micro-dollars, in yes-leg terms on both sides.';

COMMENT ON COLUMN public.orderbook_deltas_0.size_delta IS 'Signed, in hundredths of a contract.';

COMMENT ON COLUMN public.orderbook_deltas_0.occurrence IS 'Ordinal, from 1, among identical changes in one stream: truly identical changes do occur.';

CREATE VIEW public.orderbook_deltas_readable AS
 SELECT d.log_seq,
    public.moment(d.exchange_ts) AS exchange_time,
    public.moment(d.received_at) AS received_time,
    d.ticker,
    public.yes_no(d.side) AS side,
    public.dollars(d.price) AS price_dollars,
    public.contracts(d.size_delta) AS contracts_delta,
    d.occurrence,
    w.gatherer_id AS gatherer,
    public.moment(d.session_id) AS session_opened,
    d.sid,
    d.seq,
    d.exchange_ts,
    d.received_at
   FROM (public.orderbook_deltas d
     CROSS JOIN public.writer w);

ALTER TABLE public.orderbook_deltas_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.orderbook_deltas_readable IS 'Changes of levels in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.orderbook_deltas_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_deltas_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas_readable.received_time IS 'The gatherer''s clock when the frame left the socket.';

COMMENT ON COLUMN public.orderbook_deltas_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_deltas_readable.side IS 'yes or no.';

COMMENT ON COLUMN public.orderbook_deltas_readable.price_dollars IS 'Price of the level in dollars, in yes-leg terms on both sides.';

COMMENT ON COLUMN public.orderbook_deltas_readable.contracts_delta IS 'Signed change of the level''s size, in contracts.';

COMMENT ON COLUMN public.orderbook_deltas_readable.occurrence IS 'Ordinal, from 1, among identical changes: truly identical changes do occur.';

COMMENT ON COLUMN public.orderbook_deltas_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.orderbook_deltas_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.orderbook_deltas_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_deltas_readable.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.orderbook_deltas_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas_readable.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

CREATE TABLE public.orderbook_snapshots (
    log_seq bigint NOT NULL,
    received_at bigint NOT NULL,
    anchor_ts bigint,
    ticker text NOT NULL,
    source text NOT NULL,
    yes_prices bigint[] NOT NULL,
    yes_sizes bigint[] NOT NULL,
    no_prices bigint[] NOT NULL,
    no_sizes bigint[] NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.orderbook_snapshots OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_snapshots IS 'Full books. Identity: gatherer, session_id, sid, seq.';

COMMENT ON COLUMN public.orderbook_snapshots.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_snapshots.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';

COMMENT ON COLUMN public.orderbook_snapshots.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_snapshots.source IS 'ws or rest.';

COMMENT ON COLUMN public.orderbook_snapshots.yes_prices IS 'Micro-dollars, ascending; yes_sizes has the size of each.';

COMMENT ON COLUMN public.orderbook_snapshots.yes_sizes IS 'Hundredths of a contract at each of yes_prices.';

COMMENT ON COLUMN public.orderbook_snapshots.no_prices IS 'Micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.';

COMMENT ON COLUMN public.orderbook_snapshots.no_sizes IS 'Hundredths of a contract at each of no_prices.';

COMMENT ON COLUMN public.orderbook_snapshots.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.orderbook_snapshots.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_snapshots.seq IS 'The exchange''s number of the frame within the subscription.';

CREATE TABLE public.orderbook_snapshots_0 (
    log_seq bigint NOT NULL,
    received_at bigint NOT NULL,
    anchor_ts bigint,
    ticker text NOT NULL,
    source text NOT NULL,
    yes_prices bigint[] NOT NULL,
    yes_sizes bigint[] NOT NULL,
    no_prices bigint[] NOT NULL,
    no_sizes bigint[] NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
);

ALTER TABLE public.orderbook_snapshots_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_snapshots_0 IS 'Rows of orderbook_snapshots from 0 to 1000000, which is not in it.';

COMMENT ON COLUMN public.orderbook_snapshots_0.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';

COMMENT ON COLUMN public.orderbook_snapshots_0.source IS 'ws or rest.';

COMMENT ON COLUMN public.orderbook_snapshots_0.yes_prices IS 'Micro-dollars, ascending; yes_sizes has the size of each.';

COMMENT ON COLUMN public.orderbook_snapshots_0.no_prices IS 'Micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.';

CREATE VIEW public.orderbook_snapshots_readable AS
 SELECT b.log_seq,
    public.moment(b.anchor_ts) AS anchor_time,
    public.moment(b.received_at) AS received_time,
    b.ticker,
    b.source,
    ( SELECT public.dollars(max(u.p)) AS dollars
           FROM unnest(b.yes_prices) u(p)) AS bid_dollars,
    ( SELECT public.dollars(min(u.p)) AS dollars
           FROM unnest(b.no_prices) u(p)) AS ask_dollars,
    ARRAY( SELECT public.dollars(u.p) AS dollars
           FROM unnest(b.yes_prices) WITH ORDINALITY u(p, n)
          ORDER BY u.n) AS yes_dollars,
    ARRAY( SELECT public.contracts(u.q) AS contracts
           FROM unnest(b.yes_sizes) WITH ORDINALITY u(q, n)
          ORDER BY u.n) AS yes_contracts,
    ARRAY( SELECT public.dollars(u.p) AS dollars
           FROM unnest(b.no_prices) WITH ORDINALITY u(p, n)
          ORDER BY u.n) AS no_dollars,
    ARRAY( SELECT public.contracts(u.q) AS contracts
           FROM unnest(b.no_sizes) WITH ORDINALITY u(q, n)
          ORDER BY u.n) AS no_contracts,
    w.gatherer_id AS gatherer,
    public.moment(b.session_id) AS session_opened,
    b.sid,
    b.seq,
    b.anchor_ts,
    b.received_at
   FROM (public.orderbook_snapshots b
     CROSS JOIN public.writer w);

ALTER TABLE public.orderbook_snapshots_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.orderbook_snapshots_readable IS 'Full books in dollars, contracts and timestamps, with the best prices. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.anchor_time IS 'The book after all changes up to this time of the exchange equals this one; null when it has no such place.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.received_time IS 'The gatherer''s clock when the frame left the socket.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.source IS 'ws: from the stream. rest: polled beside it, without an anchor.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.bid_dollars IS 'Best bid for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.ask_dollars IS 'Best ask for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.yes_dollars IS 'Bids for yes: prices in dollars, ascending.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.yes_contracts IS 'Contracts at each of yes_dollars.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.no_dollars IS 'Bids for no, which ask for yes: prices in dollars in yes-leg terms, ascending.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.no_contracts IS 'Contracts at each of no_dollars.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; microseconds since 1970 UTC, by the exchange''s clock; null when it has no such place.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);

ALTER TABLE public.refinery_schema_history OWNER TO kalshi_owner;

COMMENT ON TABLE public.refinery_schema_history IS 'Made by kalshi 0.1.0 (8e23d3f)';

COMMENT ON COLUMN public.refinery_schema_history.version IS 'Number of the migration.';

COMMENT ON COLUMN public.refinery_schema_history.name IS 'Its name.';

COMMENT ON COLUMN public.refinery_schema_history.applied_on IS 'When it was applied, RFC 3339.';

COMMENT ON COLUMN public.refinery_schema_history.checksum IS 'Of its file as it was applied: a file that was edited since is refused.';

CREATE TABLE public.tickers (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    last_price bigint,
    yes_bid bigint,
    yes_ask bigint,
    yes_bid_size bigint,
    yes_ask_size bigint,
    last_trade_size bigint,
    volume bigint,
    open_interest bigint,
    dollar_volume bigint,
    dollar_open_interest bigint,
    content_hash bigint NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.tickers OWNER TO kalshi_owner;

COMMENT ON TABLE public.tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';

COMMENT ON COLUMN public.tickers.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.tickers.exchange_ts IS 'The exchange''s clock when it made the message, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.tickers.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.tickers.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.tickers.last_price IS 'Price of the last trade in micro-dollars of the yes leg; null before the first.';

COMMENT ON COLUMN public.tickers.yes_bid IS 'Best bid for yes in micro-dollars; null when there is none.';

COMMENT ON COLUMN public.tickers.yes_ask IS 'Best ask for yes in micro-dollars; null when there is none.';

COMMENT ON COLUMN public.tickers.yes_bid_size IS 'Hundredths of a contract at the best bid.';

COMMENT ON COLUMN public.tickers.yes_ask_size IS 'Hundredths of a contract at the best ask.';

COMMENT ON COLUMN public.tickers.last_trade_size IS 'Hundredths of a contract in the last trade.';

COMMENT ON COLUMN public.tickers.volume IS 'Hundredths of a contract.';

COMMENT ON COLUMN public.tickers.open_interest IS 'Hundredths of contracts that are open.';

COMMENT ON COLUMN public.tickers.dollar_volume IS 'Whole dollars, as the exchange sends it.';

COMMENT ON COLUMN public.tickers.dollar_open_interest IS 'Whole dollars in open contracts, as the exchange sends it.';

COMMENT ON COLUMN public.tickers.content_hash IS 'Tells two updates of one millisecond apart.';

COMMENT ON COLUMN public.tickers.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.tickers.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

CREATE TABLE public.tickers_0 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    last_price bigint,
    yes_bid bigint,
    yes_ask bigint,
    yes_bid_size bigint,
    yes_ask_size bigint,
    last_trade_size bigint,
    volume bigint,
    open_interest bigint,
    dollar_volume bigint,
    dollar_open_interest bigint,
    content_hash bigint NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL
);

ALTER TABLE public.tickers_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.tickers_0 IS 'Rows of tickers from 0 to 20000000, which is not in it.';

COMMENT ON COLUMN public.tickers_0.volume IS 'Hundredths of a contract.';

COMMENT ON COLUMN public.tickers_0.dollar_volume IS 'Whole dollars, as the exchange sends it.';

COMMENT ON COLUMN public.tickers_0.content_hash IS 'Tells two updates of one millisecond apart.';

CREATE VIEW public.tickers_readable AS
 SELECT t.log_seq,
    public.moment(t.exchange_ts) AS exchange_time,
    public.moment(t.received_at) AS received_time,
    t.ticker,
    public.dollars(t.yes_bid) AS bid_dollars,
    public.contracts(t.yes_bid_size) AS bid_contracts,
    public.dollars(t.yes_ask) AS ask_dollars,
    public.contracts(t.yes_ask_size) AS ask_contracts,
    public.dollars(t.last_price) AS last_price_dollars,
    public.contracts(t.last_trade_size) AS last_trade_contracts,
    public.contracts(t.volume) AS volume_contracts,
    public.contracts(t.open_interest) AS open_interest_contracts,
    t.dollar_volume,
    t.dollar_open_interest,
    w.gatherer_id AS gatherer,
    public.moment(t.session_id) AS session_opened,
    t.sid,
    t.exchange_ts,
    t.received_at
   FROM (public.tickers t
     CROSS JOIN public.writer w);

ALTER TABLE public.tickers_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.tickers_readable IS 'Quotes and totals as the ticker channel says them, in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.tickers_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.tickers_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.tickers_readable.received_time IS 'The gatherer''s clock when the frame left the socket.';

COMMENT ON COLUMN public.tickers_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.tickers_readable.bid_dollars IS 'Best bid for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.tickers_readable.bid_contracts IS 'Contracts at the best bid.';

COMMENT ON COLUMN public.tickers_readable.ask_dollars IS 'Best ask for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.tickers_readable.ask_contracts IS 'Contracts at the best ask.';

COMMENT ON COLUMN public.tickers_readable.last_price_dollars IS 'Price of the last trade in dollars of the yes leg.';

COMMENT ON COLUMN public.tickers_readable.last_trade_contracts IS 'Contracts in the last trade.';

COMMENT ON COLUMN public.tickers_readable.volume_contracts IS 'Contracts traded so far.';

COMMENT ON COLUMN public.tickers_readable.open_interest_contracts IS 'Contracts that are open.';

COMMENT ON COLUMN public.tickers_readable.dollar_volume IS 'Whole dollars traded so far, as the exchange sends it.';

COMMENT ON COLUMN public.tickers_readable.dollar_open_interest IS 'Whole dollars in open contracts, as the exchange sends it.';

COMMENT ON COLUMN public.tickers_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.tickers_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.tickers_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.tickers_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.tickers_readable.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

CREATE TABLE public.trades (
    log_seq bigint NOT NULL,
    trade_id uuid NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    price bigint NOT NULL,
    no_price bigint,
    size bigint NOT NULL,
    taker_side boolean,
    is_block_trade boolean NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
)
PARTITION BY RANGE (log_seq);

ALTER TABLE public.trades OWNER TO kalshi_owner;

COMMENT ON TABLE public.trades IS 'Trades. Identity: trade_id.';

COMMENT ON COLUMN public.trades.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.trades.trade_id IS 'The exchange''s identity of the trade.';

COMMENT ON COLUMN public.trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades.received_at IS 'Our clock when the frame left the socket, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.trades.price IS 'Price of the yes leg in micro-dollars.';

COMMENT ON COLUMN public.trades.no_price IS 'Price of the no leg in micro-dollars.';

COMMENT ON COLUMN public.trades.size IS 'Hundredths of a contract.';

COMMENT ON COLUMN public.trades.taker_side IS 'True: the taker is on yes. Null: a value that we do not know; the frame is in the journal.';

COMMENT ON COLUMN public.trades.is_block_trade IS 'True: agreed beside the book, which it does not touch.';

COMMENT ON COLUMN public.trades.session_id IS 'Our connection: the microsecond at which it was opened.';

COMMENT ON COLUMN public.trades.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.trades.seq IS 'The exchange''s number of the frame within the subscription.';

CREATE TABLE public.trades_0 (
    log_seq bigint NOT NULL,
    trade_id uuid NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL,
    price bigint NOT NULL,
    no_price bigint,
    size bigint NOT NULL,
    taker_side boolean,
    is_block_trade boolean NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL
);

ALTER TABLE public.trades_0 OWNER TO kalshi_owner;

COMMENT ON TABLE public.trades_0 IS 'Rows of trades from 0 to 2000000, which is not in it.';

COMMENT ON COLUMN public.trades_0.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades_0.received_at IS 'Our clock when the frame left the socket, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades_0.price IS 'Price of the yes leg in micro-dollars.';

COMMENT ON COLUMN public.trades_0.no_price IS 'Price of the no leg in micro-dollars.';

COMMENT ON COLUMN public.trades_0.size IS 'Hundredths of a contract.';

COMMENT ON COLUMN public.trades_0.taker_side IS 'True: the taker is on yes. Null: a value that we do not know; the frame is in the journal.';

COMMENT ON COLUMN public.trades_0.session_id IS 'Our connection: the microsecond at which it was opened.';

CREATE VIEW public.trades_readable AS
 SELECT t.log_seq,
    public.moment(t.exchange_ts) AS exchange_time,
    public.moment(t.received_at) AS received_time,
    t.ticker,
    public.dollars(t.price) AS price_dollars,
    public.dollars(t.no_price) AS no_price_dollars,
    public.contracts(t.size) AS contracts,
    public.yes_no(t.taker_side) AS taker,
    t.is_block_trade,
    t.trade_id,
    w.gatherer_id AS gatherer,
    public.moment(t.session_id) AS session_opened,
    t.sid,
    t.seq,
    t.exchange_ts,
    t.received_at
   FROM (public.trades t
     CROSS JOIN public.writer w);

ALTER TABLE public.trades_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.trades_readable IS 'Trades in dollars, contracts and timestamps. Bound log_seq: only it uses the index.';

COMMENT ON COLUMN public.trades_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.trades_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.trades_readable.received_time IS 'The gatherer''s clock when the frame left the socket.';

COMMENT ON COLUMN public.trades_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.trades_readable.price_dollars IS 'Price of the yes leg in dollars.';

COMMENT ON COLUMN public.trades_readable.no_price_dollars IS 'Price of the no leg in dollars; the two make up what the contract pays.';

COMMENT ON COLUMN public.trades_readable.contracts IS 'Size in contracts.';

COMMENT ON COLUMN public.trades_readable.taker IS 'The outcome that the taker is on: yes or no; null when the exchange named another.';

COMMENT ON COLUMN public.trades_readable.is_block_trade IS 'True: agreed beside the book, which it does not touch.';

COMMENT ON COLUMN public.trades_readable.trade_id IS 'The exchange''s identity of the trade.';

COMMENT ON COLUMN public.trades_readable.gatherer IS 'The gatherer that this database belongs to.';

COMMENT ON COLUMN public.trades_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.trades_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.trades_readable.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.trades_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.trades_readable.received_at IS 'The gatherer''s clock when the frame left the socket; microseconds since 1970 UTC.';

ALTER TABLE ONLY public.coverage ATTACH PARTITION public.coverage_0 FOR VALUES FROM ('0') TO ('10000000');

ALTER TABLE ONLY public.market_lifecycle ATTACH PARTITION public.market_lifecycle_0 FOR VALUES FROM ('0') TO ('1000000');

ALTER TABLE ONLY public.orderbook_deltas ATTACH PARTITION public.orderbook_deltas_0 FOR VALUES FROM ('0') TO ('50000000');

ALTER TABLE ONLY public.orderbook_snapshots ATTACH PARTITION public.orderbook_snapshots_0 FOR VALUES FROM ('0') TO ('1000000');

ALTER TABLE ONLY public.tickers ATTACH PARTITION public.tickers_0 FOR VALUES FROM ('0') TO ('20000000');

ALTER TABLE ONLY public.trades ATTACH PARTITION public.trades_0 FOR VALUES FROM ('0') TO ('2000000');

INSERT INTO public.consumers VALUES
	('dedup-1', 'orderbook_snapshots', 1, '2026-11-22 15:31:56.432613+00'),
	('dedup-1', 'market_lifecycle', 1, '2026-11-22 15:31:56.432613+00'),
	('dedup-1', 'orderbook_deltas', 1, '2026-11-22 15:31:56.432613+00'),
	('dedup-1', 'tickers', 1, '2026-11-22 15:31:56.432613+00'),
	('dedup-1', 'coverage', 1, '2026-11-22 15:31:56.432613+00'),
	('dedup-1', 'trades', 1, '2026-11-22 15:31:56.432613+00');

INSERT INTO public.coverage_0 VALUES
	(1, 'orderbook_delta', 'KXGOLD15M-26AUG050800-00', 1785901540000000, 1785901560000000, 1785901540722003, 1785901540800000, 3, 'gap', 'expected 6, got 8', 1785900000000000, 2),
	(2, 'trade', '', 1785900000000000, 1785903600000000, NULL, NULL, NULL, 'crash', 'the gatherer ended without closing', 1785900000000000, 1),
	(3, 'trade', '', 1785903600000000, 1785907200000000, 1785903600000001, 1785907199999999, 12, 'continues', '', 1785900000000000, 1);

INSERT INTO public.coverage_open VALUES
	(1785900000000000, 2, 'KXGOLD15M-26AUG060800-00', 'orderbook_delta', 1785987940000000, 1785987940800000),
	(1785900000000000, 3, '', 'ticker', 1785987940000000, NULL);

INSERT INTO public.logs VALUES
	('orderbook_snapshots', '391e7ffd-633f-90e8-a551-63dce939e549', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 1000000),
	('market_lifecycle', '326fc166-b3a7-5521-199d-2e22f3ab12a7', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 1000000),
	('orderbook_deltas', 'f08c96a7-70e4-4c61-1f6e-d40433566d72', 4, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 50000000),
	('tickers', '16d1ecc1-a2ca-a928-4bf1-f4fdbd8f9c12', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 20000000),
	('coverage', '60634baf-959a-ec63-9136-2acabaf1adef', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 10000000),
	('trades', '25156f6c-3d87-472d-7b1f-d74c45ec34f7', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096, 1, 2000000);

INSERT INTO public.market_lifecycle_0 VALUES
	(1, 'KXGOLD15M-26AUG050800-00', 'created', NULL, 1785901000000000, '{"open_ts": 1785901000, "event_type": "created"}', 5, 1785900000000000, 4, 1),
	(2, 'KXGOLD15M-26AUG050800-00', 'determined', 1785902000000000, 1785902000000001, '{"text": "it''s\n\"quoted\"", "result": "yes"}', 6, 1785900000000000, 4, 2),
	(3, 'KXGOLD15M-26AUG05', 'event_lifecycle', NULL, 1785902000000002, '{}', 7, 1785900000000000, 4, 3);

INSERT INTO public.orderbook_deltas_0 VALUES
	(1, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 1, 1785900000000000, 2, 3),
	(2, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 2, 1785900000000000, 2, 4),
	(3, 1785901540800000, 1785901540810000, 'KXGOLD15M-26AUG050800-00', false, 970000, 250, 1, 1785900000000000, 2, 5),
	(4, 1785987940800000, 1785987940810000, 'KXGOLD15M-26AUG060800-00', false, 970000, 250, 1, 1785900000000000, 2, 6);

INSERT INTO public.orderbook_snapshots_0 VALUES
	(1, 1785901540000000, 1785901540722002, 'KXGOLD15M-26AUG050800-00', 'ws', '{80000,960000}', '{30000,10800}', '{980000}', '{2000}', 1785900000000000, 2, 2),
	(2, 1785901550000000, NULL, 'KXGOLD15M-26AUG050800-00', 'rest', '{}', '{}', '{}', '{}', 1785900000000001, 0, 1),
	(3, 1785901560000000, 1785901560000000, 'KXGOLD15M-26AUG050800-00', 'ws', '{}', '{}', '{}', '{}', 1785900000000000, 2, 9);

INSERT INTO public.refinery_schema_history VALUES
	(1, 'logs', '2026-11-22T11:21:48.76972054Z', '9519849587735158871'),
	(2, 'partitions', '2026-11-22T15:31:29.012883776Z', '3137664103674340615'),
	(3, 'roles', '2026-11-22T15:31:29.586382978Z', '4971090607914199651'),
	(4, 'readable', '2026-11-22T15:31:29.660724688Z', '7542897205391804746');

INSERT INTO public.tickers_0 VALUES
	(1, 1785901540000000, 1785901540010000, 'KXGOLD15M-26AUG050800-00', 360000, 350000, 370000, 100, 250, 4602, 1234500, 99900, 16948, 10211, -81985529216486896, 1785900000000000, 3),
	(2, 1785901541000000, 1785901541010000, 'KXGOLD15M-26AUG050800-00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 1785900000000000, 3),
	(3, 1785987941000000, 1785987941010000, 'KXGOLD15M-26AUG060800-00', 10000, 0, 20000, 0, 1, 2, 3, 4, 5, 6, 7, 1785900000000000, 3);

INSERT INTO public.trades_0 VALUES
	(1, '11111111-1111-4111-8111-111111111111', 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', 360000, 640000, 13600, true, false, 1785900000000000, 1, 7),
	(2, '22222222-2222-4222-8222-222222222222', 1785901541000000, 1785901541020000, 'KXGOLD15M-26AUG050800-00', 365000, NULL, 4602, NULL, true, 1785900000000000, 1, 8),
	(3, '33333333-3333-4333-8333-333333333333', 1785987941000000, 1785987941020000, 'KXGOLD15M-26AUG060800-00', 10000, 990000, 100, false, false, 1785900000000000, 1, 9);

INSERT INTO public.writer VALUES
	(true, 'gatherer-1', 3, 'gatherer gatherer-1 (process 4711)', '2026-08-05 03:00:00+00');

ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_pkey PRIMARY KEY (name, table_name);

ALTER TABLE ONLY public.coverage
    ADD CONSTRAINT coverage_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.coverage_0
    ADD CONSTRAINT coverage_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.coverage_open
    ADD CONSTRAINT coverage_open_pkey PRIMARY KEY (session_id, sid, ticker);

ALTER TABLE ONLY public.logs
    ADD CONSTRAINT logs_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.market_lifecycle
    ADD CONSTRAINT market_lifecycle_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.market_lifecycle_0
    ADD CONSTRAINT market_lifecycle_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.orderbook_deltas
    ADD CONSTRAINT orderbook_deltas_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.orderbook_deltas_0
    ADD CONSTRAINT orderbook_deltas_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.orderbook_snapshots
    ADD CONSTRAINT orderbook_snapshots_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.orderbook_snapshots_0
    ADD CONSTRAINT orderbook_snapshots_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.tickers
    ADD CONSTRAINT tickers_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.tickers_0
    ADD CONSTRAINT tickers_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.trades
    ADD CONSTRAINT trades_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.trades_0
    ADD CONSTRAINT trades_0_pkey PRIMARY KEY (log_seq);

ALTER TABLE ONLY public.writer
    ADD CONSTRAINT writer_pkey PRIMARY KEY (singleton);

ALTER INDEX public.coverage_pkey ATTACH PARTITION public.coverage_0_pkey;

ALTER INDEX public.market_lifecycle_pkey ATTACH PARTITION public.market_lifecycle_0_pkey;

ALTER INDEX public.orderbook_deltas_pkey ATTACH PARTITION public.orderbook_deltas_0_pkey;

ALTER INDEX public.orderbook_snapshots_pkey ATTACH PARTITION public.orderbook_snapshots_0_pkey;

ALTER INDEX public.tickers_pkey ATTACH PARTITION public.tickers_0_pkey;

ALTER INDEX public.trades_pkey ATTACH PARTITION public.trades_0_pkey;

ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_table_name_fkey FOREIGN KEY (table_name) REFERENCES public.logs(name);

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO kalshi_owner;
GRANT USAGE ON SCHEMA public TO dedup_reader;
GRANT USAGE ON SCHEMA public TO gatherer;

REVOKE ALL ON FUNCTION public.consumer_passed(name text, table_name text, "position" bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.consumer_passed(name text, table_name text, "position" bigint) TO dedup_reader;

REVOKE ALL ON FUNCTION public.contracts(hundredths bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.contracts(hundredths bigint) TO gatherer;
GRANT ALL ON FUNCTION public.contracts(hundredths bigint) TO dedup_reader;

REVOKE ALL ON FUNCTION public.dollars(micro_dollars bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.dollars(micro_dollars bigint) TO gatherer;
GRANT ALL ON FUNCTION public.dollars(micro_dollars bigint) TO dedup_reader;

REVOKE ALL ON FUNCTION public.micros(moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.micros(moment timestamp with time zone) TO gatherer;
GRANT ALL ON FUNCTION public.micros(moment timestamp with time zone) TO dedup_reader;

REVOKE ALL ON FUNCTION public.moment(micros bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.moment(micros bigint) TO gatherer;
GRANT ALL ON FUNCTION public.moment(micros bigint) TO dedup_reader;

REVOKE ALL ON FUNCTION public.yes_no(is_yes boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.yes_no(is_yes boolean) TO gatherer;
GRANT ALL ON FUNCTION public.yes_no(is_yes boolean) TO dedup_reader;

GRANT SELECT ON TABLE public.consumers TO gatherer;
GRANT SELECT ON TABLE public.consumers TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.coverage TO gatherer;
GRANT SELECT ON TABLE public.coverage TO dedup_reader;

GRANT SELECT ON TABLE public.coverage_0 TO gatherer;
GRANT SELECT ON TABLE public.coverage_0 TO dedup_reader;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.coverage_open TO gatherer;
GRANT SELECT ON TABLE public.coverage_open TO dedup_reader;

GRANT SELECT ON TABLE public.writer TO gatherer;
GRANT SELECT ON TABLE public.writer TO dedup_reader;

GRANT UPDATE(gatherer_id) ON TABLE public.writer TO gatherer;

GRANT UPDATE(epoch) ON TABLE public.writer TO gatherer;

GRANT UPDATE(holder) ON TABLE public.writer TO gatherer;

GRANT UPDATE(acquired_at) ON TABLE public.writer TO gatherer;

GRANT SELECT,INSERT ON TABLE public.coverage_readable TO gatherer;
GRANT SELECT ON TABLE public.coverage_readable TO dedup_reader;

GRANT SELECT ON TABLE public.logs TO gatherer;
GRANT SELECT ON TABLE public.logs TO dedup_reader;

GRANT UPDATE(head) ON TABLE public.logs TO gatherer;

GRANT UPDATE(journal_id) ON TABLE public.logs TO gatherer;

GRANT UPDATE(journal_position) ON TABLE public.logs TO gatherer;

GRANT SELECT,INSERT ON TABLE public.market_lifecycle TO gatherer;
GRANT SELECT ON TABLE public.market_lifecycle TO dedup_reader;

GRANT SELECT ON TABLE public.market_lifecycle_0 TO gatherer;
GRANT SELECT ON TABLE public.market_lifecycle_0 TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.market_lifecycle_readable TO gatherer;
GRANT SELECT ON TABLE public.market_lifecycle_readable TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.orderbook_deltas TO gatherer;
GRANT SELECT ON TABLE public.orderbook_deltas TO dedup_reader;

GRANT SELECT ON TABLE public.orderbook_deltas_0 TO gatherer;
GRANT SELECT ON TABLE public.orderbook_deltas_0 TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.orderbook_deltas_readable TO gatherer;
GRANT SELECT ON TABLE public.orderbook_deltas_readable TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.orderbook_snapshots TO gatherer;
GRANT SELECT ON TABLE public.orderbook_snapshots TO dedup_reader;

GRANT SELECT ON TABLE public.orderbook_snapshots_0 TO gatherer;
GRANT SELECT ON TABLE public.orderbook_snapshots_0 TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.orderbook_snapshots_readable TO gatherer;
GRANT SELECT ON TABLE public.orderbook_snapshots_readable TO dedup_reader;

GRANT SELECT ON TABLE public.refinery_schema_history TO gatherer;
GRANT SELECT ON TABLE public.refinery_schema_history TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.tickers TO gatherer;
GRANT SELECT ON TABLE public.tickers TO dedup_reader;

GRANT SELECT ON TABLE public.tickers_0 TO gatherer;
GRANT SELECT ON TABLE public.tickers_0 TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.tickers_readable TO gatherer;
GRANT SELECT ON TABLE public.tickers_readable TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.trades TO gatherer;
GRANT SELECT ON TABLE public.trades TO dedup_reader;

GRANT SELECT ON TABLE public.trades_0 TO gatherer;
GRANT SELECT ON TABLE public.trades_0 TO dedup_reader;

GRANT SELECT,INSERT ON TABLE public.trades_readable TO gatherer;
GRANT SELECT ON TABLE public.trades_readable TO dedup_reader;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT USAGE ON SEQUENCES  TO gatherer;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT ALL ON FUNCTIONS  TO gatherer;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT ALL ON FUNCTIONS  TO dedup_reader;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT SELECT,INSERT ON TABLES  TO gatherer;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT SELECT ON TABLES  TO dedup_reader;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner REVOKE ALL ON FUNCTIONS  FROM PUBLIC;

