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
SET default_tablespace = '';
SET default_table_access_method = heap;
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
);
COMMENT ON TABLE public.coverage IS 'Stretches in which a subscription was seen without a hole, written when they end. Identity: gatherer, session_id, sid, channel, ticker, covered_from.';
COMMENT ON COLUMN public.coverage.ticker IS 'The market; empty for a channel that covers all markets.';
COMMENT ON COLUMN public.coverage.covered_from IS 'Our clock at the frame that opened the stretch, microseconds since 1970 UTC.';
COMMENT ON COLUMN public.coverage.covered_to IS 'Our clock at the last frame or pong that proves it.';
COMMENT ON COLUMN public.coverage.first_exchange_ts IS 'The exchange''s clock at the first record of the market in the stretch.';
COMMENT ON COLUMN public.coverage.last_exchange_ts IS 'The exchange''s clock at the last one.';
COMMENT ON COLUMN public.coverage.records IS 'Records of the market in the stretch; null when a crash lost the count.';
COMMENT ON COLUMN public.coverage.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage or continues.';
CREATE TABLE public.coverage_open (
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    ticker text NOT NULL,
    channel text NOT NULL,
    covered_from bigint NOT NULL,
    first_exchange_ts bigint
);
COMMENT ON TABLE public.coverage_open IS 'Not a log: the stretches still open at the coverage log''s journal_position, so that a restarted gatherer can close them.';
CREATE TABLE public.logs (
    name text NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    head bigint DEFAULT 0 NOT NULL,
    journal_id uuid,
    journal_position bigint DEFAULT 0 NOT NULL,
    CONSTRAINT logs_head_check CHECK ((head >= 0)),
    CONSTRAINT logs_journal_position_check CHECK ((journal_position >= 0))
)
WITH (fillfactor='20');
COMMENT ON TABLE public.logs IS 'One row a log: its identity, its last committed log_seq, and how much of the journal is in it.';
COMMENT ON COLUMN public.logs.log_id IS 'Made with the database: a rebuilt one is a new log, which consumers read from 0.';
COMMENT ON COLUMN public.logs.head IS 'The last committed log_seq; 0 when empty.';
COMMENT ON COLUMN public.logs.journal_id IS 'The journal that journal_position counts in.';
COMMENT ON COLUMN public.logs.journal_position IS 'Every journal record before this place has its rows of this log committed.';
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
);
COMMENT ON TABLE public.market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';
COMMENT ON COLUMN public.market_lifecycle.subject IS 'Ticker of the market or of the event.';
COMMENT ON COLUMN public.market_lifecycle.payload IS 'The whole message.';
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
);
COMMENT ON TABLE public.orderbook_deltas IS 'Signed changes of levels. Identity: ticker, exchange_ts, side, price, size_delta, occurrence.';
COMMENT ON COLUMN public.orderbook_deltas.side IS 'True: the yes side.';
COMMENT ON COLUMN public.orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';
COMMENT ON COLUMN public.orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';
COMMENT ON COLUMN public.orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes in one stream: truly identical changes do occur.';
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
);
COMMENT ON TABLE public.orderbook_snapshots IS 'Full books. Identity: gatherer, session_id, sid, seq.';
COMMENT ON COLUMN public.orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';
COMMENT ON COLUMN public.orderbook_snapshots.source IS 'ws or rest.';
COMMENT ON COLUMN public.orderbook_snapshots.yes_prices IS 'Micro-dollars, ascending; yes_sizes has the size of each.';
COMMENT ON COLUMN public.orderbook_snapshots.no_prices IS 'Micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.';
CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
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
);
COMMENT ON TABLE public.tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';
COMMENT ON COLUMN public.tickers.volume IS 'Hundredths of a contract.';
COMMENT ON COLUMN public.tickers.dollar_volume IS 'Whole dollars, as the exchange sends it.';
COMMENT ON COLUMN public.tickers.content_hash IS 'Tells two updates of one millisecond apart.';
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
);
COMMENT ON TABLE public.trades IS 'Trades. Identity: trade_id.';
COMMENT ON COLUMN public.trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN public.trades.received_at IS 'Our clock when the frame left the socket, microseconds since 1970 UTC.';
COMMENT ON COLUMN public.trades.price IS 'Price of the yes leg in micro-dollars.';
COMMENT ON COLUMN public.trades.no_price IS 'Price of the no leg in micro-dollars.';
COMMENT ON COLUMN public.trades.size IS 'Hundredths of a contract.';
COMMENT ON COLUMN public.trades.taker_side IS 'True: the taker is on yes. Null: a value that we do not know; the frame is in the journal.';
COMMENT ON COLUMN public.trades.session_id IS 'Our connection: the microsecond at which it was opened.';
CREATE TABLE public.writer (
    singleton boolean DEFAULT true NOT NULL,
    gatherer_id text,
    epoch bigint DEFAULT 0 NOT NULL,
    holder text DEFAULT ''::text NOT NULL,
    acquired_at timestamp with time zone,
    CONSTRAINT writer_singleton_check CHECK (singleton)
);
COMMENT ON TABLE public.writer IS 'Who may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';
COMMENT ON COLUMN public.writer.gatherer_id IS 'The gatherer that this database belongs to; set once.';
COMMENT ON COLUMN public.writer.epoch IS 'Grows by one each time the lock is taken.';
COMMENT ON COLUMN public.writer.holder IS 'Process, host and start of the last holder, for people.';
INSERT INTO public.coverage VALUES
	(1, 'orderbook_delta', 'KXGOLD15M-26AUG050800-00', 1785901540000000, 1785901560000000, 1785901540722003, 1785901540800000, 3, 'gap', 'expected 6, got 8', 1785900000000000, 2),
	(2, 'trade', '', 1785900000000000, 1785903600000000, NULL, NULL, NULL, 'crash', 'the gatherer ended without closing', 1785900000000000, 1),
	(3, 'trade', '', 1785903600000000, 1785907200000000, 1785903600000001, 1785907199999999, 12, 'continues', '', 1785900000000000, 1);
INSERT INTO public.coverage_open VALUES
	(1785900000000000, 2, 'KXGOLD15M-26AUG060800-00', 'orderbook_delta', 1785987940000000, 1785987940800000),
	(1785900000000000, 3, '', 'ticker', 1785987940000000, NULL);
INSERT INTO public.logs VALUES
	('trades', '25156f6c-3d87-472d-7b1f-d74c45ec34f7', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096),
	('orderbook_snapshots', '391e7ffd-633f-90e8-a551-63dce939e549', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096),
	('tickers', '16d1ecc1-a2ca-a928-4bf1-f4fdbd8f9c12', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096),
	('market_lifecycle', '326fc166-b3a7-5521-199d-2e22f3ab12a7', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096),
	('coverage', '60634baf-959a-ec63-9136-2acabaf1adef', 3, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096),
	('orderbook_deltas', 'f08c96a7-70e4-4c61-1f6e-d40433566d72', 4, '6ba7b810-9dad-41d1-80b4-00c04fd430c8', 4096);
INSERT INTO public.market_lifecycle VALUES
	(1, 'KXGOLD15M-26AUG050800-00', 'created', NULL, 1785901000000000, '{"open_ts": 1785901000, "event_type": "created"}', 5, 1785900000000000, 4, 1),
	(2, 'KXGOLD15M-26AUG050800-00', 'determined', 1785902000000000, 1785902000000001, '{"text": "it''s\n\"quoted\"", "result": "yes"}', 6, 1785900000000000, 4, 2),
	(3, 'KXGOLD15M-26AUG05', 'event_lifecycle', NULL, 1785902000000002, '{}', 7, 1785900000000000, 4, 3);
INSERT INTO public.orderbook_deltas VALUES
	(1, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 1, 1785900000000000, 2, 3),
	(2, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 2, 1785900000000000, 2, 4),
	(3, 1785901540800000, 1785901540810000, 'KXGOLD15M-26AUG050800-00', false, 970000, 250, 1, 1785900000000000, 2, 5),
	(4, 1785987940800000, 1785987940810000, 'KXGOLD15M-26AUG060800-00', false, 970000, 250, 1, 1785900000000000, 2, 6);
INSERT INTO public.orderbook_snapshots VALUES
	(1, 1785901540000000, 1785901540722002, 'KXGOLD15M-26AUG050800-00', 'ws', '{80000,960000}', '{30000,10800}', '{980000}', '{2000}', 1785900000000000, 2, 2),
	(2, 1785901550000000, NULL, 'KXGOLD15M-26AUG050800-00', 'rest', '{}', '{}', '{}', '{}', 1785900000000001, 0, 1),
	(3, 1785901560000000, 1785901560000000, 'KXGOLD15M-26AUG050800-00', 'ws', '{}', '{}', '{}', '{}', 1785900000000000, 2, 9);
INSERT INTO public.refinery_schema_history VALUES
	(1, 'logs', '2026-11-22T11:21:48.76972054Z', '9519849587735158871');
INSERT INTO public.tickers VALUES
	(1, 1785901540000000, 1785901540010000, 'KXGOLD15M-26AUG050800-00', 360000, 350000, 370000, 100, 250, 4602, 1234500, 99900, 16948, 10211, -81985529216486896, 1785900000000000, 3),
	(2, 1785901541000000, 1785901541010000, 'KXGOLD15M-26AUG050800-00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 1785900000000000, 3),
	(3, 1785987941000000, 1785987941010000, 'KXGOLD15M-26AUG060800-00', 10000, 0, 20000, 0, 1, 2, 3, 4, 5, 6, 7, 1785900000000000, 3);
INSERT INTO public.trades VALUES
	(1, '11111111-1111-4111-8111-111111111111', 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', 360000, 640000, 13600, true, false, 1785900000000000, 1, 7),
	(2, '22222222-2222-4222-8222-222222222222', 1785901541000000, 1785901541020000, 'KXGOLD15M-26AUG050800-00', 365000, NULL, 4602, NULL, true, 1785900000000000, 1, 8),
	(3, '33333333-3333-4333-8333-333333333333', 1785987941000000, 1785987941020000, 'KXGOLD15M-26AUG060800-00', 10000, 990000, 100, false, false, 1785900000000000, 1, 9);
INSERT INTO public.writer VALUES
	(true, 'gatherer-1', 3, 'gatherer gatherer-1 (process 4711)', '2026-08-05 03:00:00+00');
ALTER TABLE ONLY public.coverage_open
    ADD CONSTRAINT coverage_open_pkey PRIMARY KEY (session_id, sid, ticker);
ALTER TABLE ONLY public.coverage
    ADD CONSTRAINT coverage_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.logs
    ADD CONSTRAINT logs_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.market_lifecycle
    ADD CONSTRAINT market_lifecycle_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.orderbook_deltas
    ADD CONSTRAINT orderbook_deltas_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.orderbook_snapshots
    ADD CONSTRAINT orderbook_snapshots_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.tickers
    ADD CONSTRAINT tickers_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.trades
    ADD CONSTRAINT trades_pkey PRIMARY KEY (log_seq);
ALTER TABLE ONLY public.writer
    ADD CONSTRAINT writer_pkey PRIMARY KEY (singleton);
