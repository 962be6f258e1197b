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
CREATE TABLE public.consumers (
    name text NOT NULL,
    table_name text NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT consumers_position_check CHECK (("position" >= 0))
)
WITH (fillfactor='50');
COMMENT ON TABLE public.consumers IS 'Who reads production''s logs, and how far. The retention drops no partition with a row that a consumer registered here has not passed. A consumer moves its position by compare-and-set; one that is given up must be deleted here.';
COMMENT ON COLUMN public.consumers."position" IS 'The last log_seq of the table that the consumer is done with.';
CREATE TABLE public.contributions (
    gatherer text NOT NULL,
    table_name text NOT NULL,
    hour bigint NOT NULL,
    offered bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    alone bigint DEFAULT 0 NOT NULL,
    alone_unwatched bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
COMMENT ON TABLE public.contributions IS 'What redundancy bought: which gatherer brought how many rows, and how many that no other had. Moves in the rows'' transaction. A row stands in alone from the moment one gatherer has brought it until another does, so the figures of an hour are exact when every gatherer''s cursor has passed it; offered - duplicates is what production has from that gatherer. Of orderbook_snapshots and coverage every row is the gatherer''s own.';
COMMENT ON COLUMN public.contributions.hour IS 'First microsecond of the hour of the row''s own time (its gatherer''s clock where it has none), since 1970 UTC.';
COMMENT ON COLUMN public.contributions.offered IS 'Rows read from that gatherer, without those of sync_cursors.past_retention.';
COMMENT ON COLUMN public.contributions.duplicates IS 'Of these, rows that production had, or got from another copy.';
COMMENT ON COLUMN public.contributions.alone IS 'Rows that this gatherer brought and no other so far.';
COMMENT ON COLUMN public.contributions.alone_unwatched IS 'Of alone, rows that came when too many others stood alone: were they brought by another later, nobody would notice. Alone is too high by this much at most.';
CREATE TABLE public.contributions_open (
    table_name text NOT NULL,
    part bigint NOT NULL,
    rows bytea NOT NULL
);
ALTER TABLE ONLY public.contributions_open ALTER COLUMN rows SET STORAGE EXTERNAL;
COMMENT ON TABLE public.contributions_open IS 'The rows that stand in contributions.alone and may still be brought by another, by hash; for the deduplicator alone.';
COMMENT ON COLUMN public.contributions_open.rows IS 'Records of 26 bytes, later parts over earlier ones: 16 of the identity''s hash, 2 of the gatherer (-1: no longer alone), 8 of the hour.';
CREATE TABLE public.coverage (
    log_seq bigint NOT NULL,
    channel text NOT NULL COLLATE pg_catalog."C",
    ticker text NOT NULL COLLATE pg_catalog."C",
    covered_from bigint NOT NULL,
    covered_to bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts bigint,
    records bigint,
    ended_by text NOT NULL,
    detail text NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    gatherer_id smallint NOT NULL
)
PARTITION BY RANGE (covered_from);
COMMENT ON TABLE public.coverage IS 'Which gatherer saw which market without a hole, from when to when, and why that ended.';
CREATE TABLE public.coverage_2026_07_30 (
    log_seq bigint NOT NULL,
    channel text NOT NULL COLLATE pg_catalog."C",
    ticker text NOT NULL COLLATE pg_catalog."C",
    covered_from bigint NOT NULL,
    covered_to bigint NOT NULL,
    first_exchange_ts bigint,
    last_exchange_ts bigint,
    records bigint,
    ended_by text NOT NULL,
    detail text NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.coverage_2026_07_30 IS 'Rows of coverage of a week or a day.';
CREATE TABLE public.events (
    event_ticker text NOT NULL COLLATE pg_catalog."C",
    series_ticker text COLLATE pg_catalog."C",
    title text,
    sub_title text,
    category text,
    mutually_exclusive boolean,
    collateral_return_type text,
    strike_ts bigint,
    strike_period text,
    updated_ts bigint,
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    CONSTRAINT events_presence_check CHECK ((presence = ANY (ARRAY['listed'::text, 'archived'::text, 'missing'::text])))
);
COMMENT ON TABLE public.events IS 'Events: what the markets of one question share. The version that is valid now; events_history has all of them.';
COMMENT ON COLUMN public.events.event_ticker IS 'The exchange''s name of the event.';
COMMENT ON COLUMN public.events.series_ticker IS 'The series that it belongs to; the series may be unknown.';
COMMENT ON COLUMN public.events.title IS 'For people.';
COMMENT ON COLUMN public.events.sub_title IS 'For people, shorter.';
COMMENT ON COLUMN public.events.category IS 'The exchange''s category.';
COMMENT ON COLUMN public.events.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';
COMMENT ON COLUMN public.events.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';
COMMENT ON COLUMN public.events.strike_ts IS 'The date that the question is about (strike_date).';
COMMENT ON COLUMN public.events.strike_period IS 'The period that the question is about, as sent.';
COMMENT ON COLUMN public.events.updated_ts IS 'When the exchange says that it changed the event.';
COMMENT ON COLUMN public.events.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.events.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.events.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.events.valid_from IS 'When this version was received.';
CREATE TABLE public.events_past (
    event_ticker text NOT NULL COLLATE pg_catalog."C",
    series_ticker text COLLATE pg_catalog."C",
    title text,
    sub_title text,
    category text,
    mutually_exclusive boolean,
    collateral_return_type text,
    strike_ts bigint,
    strike_period text,
    updated_ts bigint,
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint NOT NULL,
    CONSTRAINT events_past_check CHECK ((valid_to > valid_from))
);
COMMENT ON TABLE public.events_past IS 'Versions of events that are no longer valid.';
COMMENT ON COLUMN public.events_past.event_ticker IS 'The exchange''s name of the event.';
COMMENT ON COLUMN public.events_past.series_ticker IS 'The series that it belongs to; the series may be unknown.';
COMMENT ON COLUMN public.events_past.title IS 'For people.';
COMMENT ON COLUMN public.events_past.sub_title IS 'For people, shorter.';
COMMENT ON COLUMN public.events_past.category IS 'The exchange''s category.';
COMMENT ON COLUMN public.events_past.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';
COMMENT ON COLUMN public.events_past.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';
COMMENT ON COLUMN public.events_past.strike_ts IS 'The date that the question is about (strike_date).';
COMMENT ON COLUMN public.events_past.strike_period IS 'The period that the question is about, as sent.';
COMMENT ON COLUMN public.events_past.updated_ts IS 'When the exchange says that it changed the event.';
COMMENT ON COLUMN public.events_past.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.events_past.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.events_past.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.events_past.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.events_past.valid_to IS 'When the next version was received.';
CREATE VIEW public.events_history AS
 SELECT events.event_ticker,
    events.series_ticker,
    events.title,
    events.sub_title,
    events.category,
    events.mutually_exclusive,
    events.collateral_return_type,
    events.strike_ts,
    events.strike_period,
    events.updated_ts,
    events.raw,
    events.content_hash,
    events.presence,
    events.valid_from,
    NULL::bigint AS valid_to
   FROM public.events
UNION ALL
 SELECT events_past.event_ticker,
    events_past.series_ticker,
    events_past.title,
    events_past.sub_title,
    events_past.category,
    events_past.mutually_exclusive,
    events_past.collateral_return_type,
    events_past.strike_ts,
    events_past.strike_period,
    events_past.updated_ts,
    events_past.raw,
    events_past.content_hash,
    events_past.presence,
    events_past.valid_from,
    events_past.valid_to
   FROM public.events_past;
COMMENT ON VIEW public.events_history IS 'Every version of every event: valid from valid_from up to valid_to, which is null in the one that is valid now.';
COMMENT ON COLUMN public.events_history.event_ticker IS 'The exchange''s name of the event.';
COMMENT ON COLUMN public.events_history.series_ticker IS 'The series that it belongs to; the series may be unknown.';
COMMENT ON COLUMN public.events_history.title IS 'For people.';
COMMENT ON COLUMN public.events_history.sub_title IS 'For people, shorter.';
COMMENT ON COLUMN public.events_history.category IS 'The exchange''s category.';
COMMENT ON COLUMN public.events_history.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';
COMMENT ON COLUMN public.events_history.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';
COMMENT ON COLUMN public.events_history.strike_ts IS 'The date that the question is about (strike_date).';
COMMENT ON COLUMN public.events_history.strike_period IS 'The period that the question is about, as sent.';
COMMENT ON COLUMN public.events_history.updated_ts IS 'When the exchange says that it changed the event.';
COMMENT ON COLUMN public.events_history.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.events_history.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.events_history.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.events_history.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.events_history.valid_to IS 'When the next version was received.';
CREATE TABLE public.gatherers (
    gatherer_id smallint NOT NULL,
    name text NOT NULL
);
COMMENT ON TABLE public.gatherers IS 'The gatherers that ever contributed, by the small number that rows carry.';
ALTER TABLE public.gatherers ALTER COLUMN gatherer_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.gatherers_gatherer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.logs (
    name text NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    head bigint DEFAULT 0 NOT NULL,
    time_max bigint DEFAULT 0 NOT NULL,
    kept_from bigint,
    CONSTRAINT logs_head_check CHECK ((head >= 0))
)
WITH (fillfactor='20');
COMMENT ON TABLE public.logs IS 'One row a log: its identity and its last committed log_seq.';
COMMENT ON COLUMN public.logs.time_max IS 'No committed row of the log has a later time: exchange_ts, or received_at of snapshots, or covered_from of coverage. Whoever appends raises it in the same transaction; a row above it is known to be new without a look into the table.';
COMMENT ON COLUMN public.logs.kept_from IS 'Rows with an earlier time were dropped by the retention; null when none were. No row below it is written any more: what was dropped can no longer be told from what is new.';
CREATE TABLE public.market_lifecycle (
    log_seq bigint NOT NULL,
    subject text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL COLLATE pg_catalog."C",
    exchange_ts bigint,
    received_at bigint NOT NULL,
    payload jsonb NOT NULL,
    content_hash bigint NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';
CREATE TABLE public.market_sync (
    table_name text NOT NULL,
    synced_until bigint,
    synced_at bigint,
    full_from bigint,
    full_ended bigint,
    rows_listed bigint,
    to_confirm boolean DEFAULT true NOT NULL,
    part smallint,
    cursor text,
    cursor_from bigint,
    cursor_rows bigint
);
COMMENT ON TABLE public.market_sync IS 'How far series, events and markets are copied. Moves in the transaction of the rows.';
COMMENT ON COLUMN public.market_sync.table_name IS 'series, events or markets.';
COMMENT ON COLUMN public.market_sync.synced_until IS 'Everything that the exchange changed up to here is in the table; null before the first complete list.';
COMMENT ON COLUMN public.market_sync.synced_at IS 'When the last list, complete or of changes, ended.';
COMMENT ON COLUMN public.market_sync.full_from IS 'When the last complete list began.';
COMMENT ON COLUMN public.market_sync.full_ended IS 'When the last complete list ended.';
COMMENT ON COLUMN public.market_sync.rows_listed IS 'Keys in the last complete list.';
COMMENT ON COLUMN public.market_sync.to_confirm IS 'True: the last complete list differed from what was known in a way that a list which shifted while it was read would also cause; another one is read at once.';
COMMENT ON COLUMN public.market_sync.part IS 'Of a first complete list under way: which of its lists is being read, from 0.';
COMMENT ON COLUMN public.market_sync.cursor IS 'Of a first complete list under way: the exchange''s cursor of the next page. A restart goes on there.';
COMMENT ON COLUMN public.market_sync.cursor_from IS 'Of a first complete list under way: when it began.';
COMMENT ON COLUMN public.market_sync.cursor_rows IS 'Of a first complete list under way: rows of the pages so far.';
CREATE TABLE public.markets (
    ticker text NOT NULL COLLATE pg_catalog."C",
    event_ticker text COLLATE pg_catalog."C",
    market_type text,
    title text,
    yes_sub_title text,
    no_sub_title text,
    status text,
    exchange_status text,
    result text,
    settlement_value bigint,
    settlement_ts bigint,
    expiration_value text,
    created_ts bigint,
    updated_ts bigint,
    open_ts bigint,
    close_ts bigint,
    expected_expiration_ts bigint,
    latest_expiration_ts bigint,
    settlement_timer_seconds bigint,
    notional_value bigint,
    last_price bigint,
    volume bigint,
    open_interest bigint,
    strike_type text,
    floor_strike text,
    cap_strike text,
    price_level_structure text,
    mve_collection_ticker text COLLATE pg_catalog."C",
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    CONSTRAINT markets_presence_check CHECK ((presence = ANY (ARRAY['listed'::text, 'archived'::text, 'missing'::text]))),
    CONSTRAINT markets_status_check CHECK ((status = ANY (ARRAY['unopened'::text, 'open'::text, 'closed'::text, 'settled'::text])))
);
COMMENT ON TABLE public.markets IS 'Markets: the tradables. The version that is valid now; markets_history has all of them. Trading alone makes no new version: the tickers and trades logs have that.';
COMMENT ON COLUMN public.markets.ticker IS 'The exchange''s name of the market, as in the logs.';
COMMENT ON COLUMN public.markets.event_ticker IS 'The event that it belongs to; the event may be unknown.';
COMMENT ON COLUMN public.markets.market_type IS 'binary, scalar, or one that is new.';
COMMENT ON COLUMN public.markets.title IS 'For people.';
COMMENT ON COLUMN public.markets.yes_sub_title IS 'What yes means, for people.';
COMMENT ON COLUMN public.markets.no_sub_title IS 'What no means, for people.';
COMMENT ON COLUMN public.markets.status IS 'unopened (initialized), open (active, inactive), closed (closed, determined, disputed, amended) or settled (finalized); null when exchange_status is one that this version does not know. inactive is a pause within open.';
COMMENT ON COLUMN public.markets.exchange_status IS 'As the exchange names it: initialized, active, inactive, closed, determined, disputed, amended, finalized, or one that is new.';
COMMENT ON COLUMN public.markets.result IS 'yes, no, scalar, or empty while there is none; as sent.';
COMMENT ON COLUMN public.markets.settlement_value IS 'What a yes contract pays, in micro-dollars; for a scalar result anything up to the notional value. Null until the exchange says it.';
COMMENT ON COLUMN public.markets.settlement_ts IS 'When it was settled.';
COMMENT ON COLUMN public.markets.expiration_value IS 'The observed value that decided it, as sent.';
COMMENT ON COLUMN public.markets.created_ts IS 'When the exchange created it.';
COMMENT ON COLUMN public.markets.updated_ts IS 'When the exchange says that it changed something other than trading.';
COMMENT ON COLUMN public.markets.open_ts IS 'Trading begins.';
COMMENT ON COLUMN public.markets.close_ts IS 'Trading ends.';
COMMENT ON COLUMN public.markets.expected_expiration_ts IS 'When the exchange expects to know the result.';
COMMENT ON COLUMN public.markets.latest_expiration_ts IS 'The last moment at which the result is known.';
COMMENT ON COLUMN public.markets.settlement_timer_seconds IS 'From the determination to the settlement, in seconds.';
COMMENT ON COLUMN public.markets.notional_value IS 'What the yes and the no contract pay together, in micro-dollars.';
COMMENT ON COLUMN public.markets.last_price IS 'Price of the last trade in micro-dollars when this version was read; trading alone makes no new version.';
COMMENT ON COLUMN public.markets.volume IS 'Hundredths of contracts traded when this version was read; final in a settled market.';
COMMENT ON COLUMN public.markets.open_interest IS 'Hundredths of contracts that were open when this version was read.';
COMMENT ON COLUMN public.markets.strike_type IS 'How the strikes are meant: greater, between, custom, ...';
COMMENT ON COLUMN public.markets.floor_strike IS 'The lower strike, as sent.';
COMMENT ON COLUMN public.markets.cap_strike IS 'The upper strike, as sent.';
COMMENT ON COLUMN public.markets.price_level_structure IS 'The exchange''s name of the price steps; raw has price_ranges.';
COMMENT ON COLUMN public.markets.mve_collection_ticker IS 'The collection of a multivariate (combo) market; null for all others.';
COMMENT ON COLUMN public.markets.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.markets.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.markets.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.markets.valid_from IS 'When this version was received.';
CREATE TABLE public.markets_past (
    ticker text NOT NULL COLLATE pg_catalog."C",
    event_ticker text COLLATE pg_catalog."C",
    market_type text,
    title text,
    yes_sub_title text,
    no_sub_title text,
    status text,
    exchange_status text,
    result text,
    settlement_value bigint,
    settlement_ts bigint,
    expiration_value text,
    created_ts bigint,
    updated_ts bigint,
    open_ts bigint,
    close_ts bigint,
    expected_expiration_ts bigint,
    latest_expiration_ts bigint,
    settlement_timer_seconds bigint,
    notional_value bigint,
    last_price bigint,
    volume bigint,
    open_interest bigint,
    strike_type text,
    floor_strike text,
    cap_strike text,
    price_level_structure text,
    mve_collection_ticker text COLLATE pg_catalog."C",
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint NOT NULL,
    CONSTRAINT markets_past_check CHECK ((valid_to > valid_from))
);
COMMENT ON TABLE public.markets_past IS 'Versions of markets that are no longer valid.';
COMMENT ON COLUMN public.markets_past.ticker IS 'The exchange''s name of the market, as in the logs.';
COMMENT ON COLUMN public.markets_past.event_ticker IS 'The event that it belongs to; the event may be unknown.';
COMMENT ON COLUMN public.markets_past.market_type IS 'binary, scalar, or one that is new.';
COMMENT ON COLUMN public.markets_past.title IS 'For people.';
COMMENT ON COLUMN public.markets_past.yes_sub_title IS 'What yes means, for people.';
COMMENT ON COLUMN public.markets_past.no_sub_title IS 'What no means, for people.';
COMMENT ON COLUMN public.markets_past.status IS 'unopened (initialized), open (active, inactive), closed (closed, determined, disputed, amended) or settled (finalized); null when exchange_status is one that this version does not know. inactive is a pause within open.';
COMMENT ON COLUMN public.markets_past.exchange_status IS 'As the exchange names it: initialized, active, inactive, closed, determined, disputed, amended, finalized, or one that is new.';
COMMENT ON COLUMN public.markets_past.result IS 'yes, no, scalar, or empty while there is none; as sent.';
COMMENT ON COLUMN public.markets_past.settlement_value IS 'What a yes contract pays, in micro-dollars; for a scalar result anything up to the notional value. Null until the exchange says it.';
COMMENT ON COLUMN public.markets_past.settlement_ts IS 'When it was settled.';
COMMENT ON COLUMN public.markets_past.expiration_value IS 'The observed value that decided it, as sent.';
COMMENT ON COLUMN public.markets_past.created_ts IS 'When the exchange created it.';
COMMENT ON COLUMN public.markets_past.updated_ts IS 'When the exchange says that it changed something other than trading.';
COMMENT ON COLUMN public.markets_past.open_ts IS 'Trading begins.';
COMMENT ON COLUMN public.markets_past.close_ts IS 'Trading ends.';
COMMENT ON COLUMN public.markets_past.expected_expiration_ts IS 'When the exchange expects to know the result.';
COMMENT ON COLUMN public.markets_past.latest_expiration_ts IS 'The last moment at which the result is known.';
COMMENT ON COLUMN public.markets_past.settlement_timer_seconds IS 'From the determination to the settlement, in seconds.';
COMMENT ON COLUMN public.markets_past.notional_value IS 'What the yes and the no contract pay together, in micro-dollars.';
COMMENT ON COLUMN public.markets_past.last_price IS 'Price of the last trade in micro-dollars when this version was read; trading alone makes no new version.';
COMMENT ON COLUMN public.markets_past.volume IS 'Hundredths of contracts traded when this version was read; final in a settled market.';
COMMENT ON COLUMN public.markets_past.open_interest IS 'Hundredths of contracts that were open when this version was read.';
COMMENT ON COLUMN public.markets_past.strike_type IS 'How the strikes are meant: greater, between, custom, ...';
COMMENT ON COLUMN public.markets_past.floor_strike IS 'The lower strike, as sent.';
COMMENT ON COLUMN public.markets_past.cap_strike IS 'The upper strike, as sent.';
COMMENT ON COLUMN public.markets_past.price_level_structure IS 'The exchange''s name of the price steps; raw has price_ranges.';
COMMENT ON COLUMN public.markets_past.mve_collection_ticker IS 'The collection of a multivariate (combo) market; null for all others.';
COMMENT ON COLUMN public.markets_past.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.markets_past.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.markets_past.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.markets_past.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.markets_past.valid_to IS 'When the next version was received.';
CREATE VIEW public.markets_history AS
 SELECT markets.ticker,
    markets.event_ticker,
    markets.market_type,
    markets.title,
    markets.yes_sub_title,
    markets.no_sub_title,
    markets.status,
    markets.exchange_status,
    markets.result,
    markets.settlement_value,
    markets.settlement_ts,
    markets.expiration_value,
    markets.created_ts,
    markets.updated_ts,
    markets.open_ts,
    markets.close_ts,
    markets.expected_expiration_ts,
    markets.latest_expiration_ts,
    markets.settlement_timer_seconds,
    markets.notional_value,
    markets.last_price,
    markets.volume,
    markets.open_interest,
    markets.strike_type,
    markets.floor_strike,
    markets.cap_strike,
    markets.price_level_structure,
    markets.mve_collection_ticker,
    markets.raw,
    markets.content_hash,
    markets.presence,
    markets.valid_from,
    NULL::bigint AS valid_to
   FROM public.markets
UNION ALL
 SELECT markets_past.ticker,
    markets_past.event_ticker,
    markets_past.market_type,
    markets_past.title,
    markets_past.yes_sub_title,
    markets_past.no_sub_title,
    markets_past.status,
    markets_past.exchange_status,
    markets_past.result,
    markets_past.settlement_value,
    markets_past.settlement_ts,
    markets_past.expiration_value,
    markets_past.created_ts,
    markets_past.updated_ts,
    markets_past.open_ts,
    markets_past.close_ts,
    markets_past.expected_expiration_ts,
    markets_past.latest_expiration_ts,
    markets_past.settlement_timer_seconds,
    markets_past.notional_value,
    markets_past.last_price,
    markets_past.volume,
    markets_past.open_interest,
    markets_past.strike_type,
    markets_past.floor_strike,
    markets_past.cap_strike,
    markets_past.price_level_structure,
    markets_past.mve_collection_ticker,
    markets_past.raw,
    markets_past.content_hash,
    markets_past.presence,
    markets_past.valid_from,
    markets_past.valid_to
   FROM public.markets_past;
COMMENT ON VIEW public.markets_history IS 'Every version of every market: valid from valid_from up to valid_to, which is null in the one that is valid now.';
COMMENT ON COLUMN public.markets_history.ticker IS 'The exchange''s name of the market, as in the logs.';
COMMENT ON COLUMN public.markets_history.event_ticker IS 'The event that it belongs to; the event may be unknown.';
COMMENT ON COLUMN public.markets_history.market_type IS 'binary, scalar, or one that is new.';
COMMENT ON COLUMN public.markets_history.title IS 'For people.';
COMMENT ON COLUMN public.markets_history.yes_sub_title IS 'What yes means, for people.';
COMMENT ON COLUMN public.markets_history.no_sub_title IS 'What no means, for people.';
COMMENT ON COLUMN public.markets_history.status IS 'unopened (initialized), open (active, inactive), closed (closed, determined, disputed, amended) or settled (finalized); null when exchange_status is one that this version does not know. inactive is a pause within open.';
COMMENT ON COLUMN public.markets_history.exchange_status IS 'As the exchange names it: initialized, active, inactive, closed, determined, disputed, amended, finalized, or one that is new.';
COMMENT ON COLUMN public.markets_history.result IS 'yes, no, scalar, or empty while there is none; as sent.';
COMMENT ON COLUMN public.markets_history.settlement_value IS 'What a yes contract pays, in micro-dollars; for a scalar result anything up to the notional value. Null until the exchange says it.';
COMMENT ON COLUMN public.markets_history.settlement_ts IS 'When it was settled.';
COMMENT ON COLUMN public.markets_history.expiration_value IS 'The observed value that decided it, as sent.';
COMMENT ON COLUMN public.markets_history.created_ts IS 'When the exchange created it.';
COMMENT ON COLUMN public.markets_history.updated_ts IS 'When the exchange says that it changed something other than trading.';
COMMENT ON COLUMN public.markets_history.open_ts IS 'Trading begins.';
COMMENT ON COLUMN public.markets_history.close_ts IS 'Trading ends.';
COMMENT ON COLUMN public.markets_history.expected_expiration_ts IS 'When the exchange expects to know the result.';
COMMENT ON COLUMN public.markets_history.latest_expiration_ts IS 'The last moment at which the result is known.';
COMMENT ON COLUMN public.markets_history.settlement_timer_seconds IS 'From the determination to the settlement, in seconds.';
COMMENT ON COLUMN public.markets_history.notional_value IS 'What the yes and the no contract pay together, in micro-dollars.';
COMMENT ON COLUMN public.markets_history.last_price IS 'Price of the last trade in micro-dollars when this version was read; trading alone makes no new version.';
COMMENT ON COLUMN public.markets_history.volume IS 'Hundredths of contracts traded when this version was read; final in a settled market.';
COMMENT ON COLUMN public.markets_history.open_interest IS 'Hundredths of contracts that were open when this version was read.';
COMMENT ON COLUMN public.markets_history.strike_type IS 'How the strikes are meant: greater, between, custom, ...';
COMMENT ON COLUMN public.markets_history.floor_strike IS 'The lower strike, as sent.';
COMMENT ON COLUMN public.markets_history.cap_strike IS 'The upper strike, as sent.';
COMMENT ON COLUMN public.markets_history.price_level_structure IS 'The exchange''s name of the price steps; raw has price_ranges.';
COMMENT ON COLUMN public.markets_history.mve_collection_ticker IS 'The collection of a multivariate (combo) market; null for all others.';
COMMENT ON COLUMN public.markets_history.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.markets_history.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.markets_history.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.markets_history.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.markets_history.valid_to IS 'When the next version was received.';
CREATE TABLE public.orderbook_deltas (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    side boolean NOT NULL,
    price bigint NOT NULL,
    size_delta bigint NOT NULL,
    occurrence integer NOT NULL,
    gatherer_id smallint NOT NULL
)
PARTITION BY RANGE (exchange_ts);
COMMENT ON TABLE public.orderbook_deltas IS 'Signed changes of levels, each once: the multiset union of what the gatherers saw.';
COMMENT ON COLUMN public.orderbook_deltas.side IS 'True: the yes side.';
COMMENT ON COLUMN public.orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';
COMMENT ON COLUMN public.orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';
COMMENT ON COLUMN public.orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes: truly identical changes do occur.';
CREATE TABLE public.orderbook_deltas_2026_08_05 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    side boolean NOT NULL,
    price bigint NOT NULL,
    size_delta bigint NOT NULL,
    occurrence integer NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.orderbook_deltas_2026_08_05 IS 'Rows of orderbook_deltas of a week or a day.';
CREATE TABLE public.orderbook_deltas_2026_08_06 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    side boolean NOT NULL,
    price bigint NOT NULL,
    size_delta bigint NOT NULL,
    occurrence integer NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.orderbook_deltas_2026_08_06 IS 'Rows of orderbook_deltas of a week or a day.';
CREATE TABLE public.orderbook_snapshots (
    log_seq bigint NOT NULL,
    received_at bigint NOT NULL,
    anchor_ts bigint,
    ticker text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL,
    yes_prices bigint[] NOT NULL,
    yes_sizes bigint[] NOT NULL,
    no_prices bigint[] NOT NULL,
    no_sizes bigint[] NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL,
    gatherer_id smallint NOT NULL
)
PARTITION BY RANGE (received_at);
COMMENT ON TABLE public.orderbook_snapshots IS 'Full books, kept from every gatherer: each anchors that gatherer''s stream.';
COMMENT ON COLUMN public.orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';
CREATE TABLE public.orderbook_snapshots_2026_07_30 (
    log_seq bigint NOT NULL,
    received_at bigint NOT NULL,
    anchor_ts bigint,
    ticker text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL,
    yes_prices bigint[] NOT NULL,
    yes_sizes bigint[] NOT NULL,
    no_prices bigint[] NOT NULL,
    no_sizes bigint[] NOT NULL,
    session_id bigint NOT NULL,
    sid bigint NOT NULL,
    seq bigint NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.orderbook_snapshots_2026_07_30 IS 'Rows of orderbook_snapshots of a week or a day.';
CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
CREATE TABLE public.series (
    ticker text NOT NULL COLLATE pg_catalog."C",
    title text,
    category text,
    frequency text,
    fee_type text,
    fee_multiplier text,
    updated_ts bigint,
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    CONSTRAINT series_presence_check CHECK ((presence = ANY (ARRAY['listed'::text, 'archived'::text, 'missing'::text])))
);
COMMENT ON TABLE public.series IS 'Series (KXGOLD15M): groups of events that recur. The version that is valid now; series_history has all of them.';
COMMENT ON COLUMN public.series.ticker IS 'The exchange''s name of the series.';
COMMENT ON COLUMN public.series.title IS 'For people.';
COMMENT ON COLUMN public.series.category IS 'The exchange''s category, such as Economics.';
COMMENT ON COLUMN public.series.frequency IS 'How often events recur, as the exchange says it.';
COMMENT ON COLUMN public.series.fee_type IS 'How trading fees are computed, as the exchange names it.';
COMMENT ON COLUMN public.series.fee_multiplier IS 'The number in that computation, as sent.';
COMMENT ON COLUMN public.series.updated_ts IS 'When the exchange says that it changed the series.';
COMMENT ON COLUMN public.series.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.series.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.series.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.series.valid_from IS 'When this version was received.';
CREATE TABLE public.series_past (
    ticker text NOT NULL COLLATE pg_catalog."C",
    title text,
    category text,
    frequency text,
    fee_type text,
    fee_multiplier text,
    updated_ts bigint,
    raw jsonb NOT NULL,
    content_hash bigint NOT NULL,
    presence text NOT NULL,
    valid_from bigint NOT NULL,
    valid_to bigint NOT NULL,
    CONSTRAINT series_past_check CHECK ((valid_to > valid_from))
);
COMMENT ON TABLE public.series_past IS 'Versions of series that are no longer valid.';
COMMENT ON COLUMN public.series_past.ticker IS 'The exchange''s name of the series.';
COMMENT ON COLUMN public.series_past.title IS 'For people.';
COMMENT ON COLUMN public.series_past.category IS 'The exchange''s category, such as Economics.';
COMMENT ON COLUMN public.series_past.frequency IS 'How often events recur, as the exchange says it.';
COMMENT ON COLUMN public.series_past.fee_type IS 'How trading fees are computed, as the exchange names it.';
COMMENT ON COLUMN public.series_past.fee_multiplier IS 'The number in that computation, as sent.';
COMMENT ON COLUMN public.series_past.updated_ts IS 'When the exchange says that it changed the series.';
COMMENT ON COLUMN public.series_past.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.series_past.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.series_past.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.series_past.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.series_past.valid_to IS 'When the next version was received.';
CREATE VIEW public.series_history AS
 SELECT series.ticker,
    series.title,
    series.category,
    series.frequency,
    series.fee_type,
    series.fee_multiplier,
    series.updated_ts,
    series.raw,
    series.content_hash,
    series.presence,
    series.valid_from,
    NULL::bigint AS valid_to
   FROM public.series
UNION ALL
 SELECT series_past.ticker,
    series_past.title,
    series_past.category,
    series_past.frequency,
    series_past.fee_type,
    series_past.fee_multiplier,
    series_past.updated_ts,
    series_past.raw,
    series_past.content_hash,
    series_past.presence,
    series_past.valid_from,
    series_past.valid_to
   FROM public.series_past;
COMMENT ON VIEW public.series_history IS 'Every version of every series: valid from valid_from up to valid_to, which is null in the one that is valid now.';
COMMENT ON COLUMN public.series_history.ticker IS 'The exchange''s name of the series.';
COMMENT ON COLUMN public.series_history.title IS 'For people.';
COMMENT ON COLUMN public.series_history.category IS 'The exchange''s category, such as Economics.';
COMMENT ON COLUMN public.series_history.frequency IS 'How often events recur, as the exchange says it.';
COMMENT ON COLUMN public.series_history.fee_type IS 'How trading fees are computed, as the exchange names it.';
COMMENT ON COLUMN public.series_history.fee_multiplier IS 'The number in that computation, as sent.';
COMMENT ON COLUMN public.series_history.updated_ts IS 'When the exchange says that it changed the series.';
COMMENT ON COLUMN public.series_history.raw IS 'The whole object as REST listed it, with every field that has no column.';
COMMENT ON COLUMN public.series_history.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';
COMMENT ON COLUMN public.series_history.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';
COMMENT ON COLUMN public.series_history.valid_from IS 'When this version was received.';
COMMENT ON COLUMN public.series_history.valid_to IS 'When the next version was received.';
CREATE TABLE public.sync_cursors (
    gatherer text NOT NULL,
    table_name text NOT NULL,
    log_id uuid NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    head bigint DEFAULT 0 NOT NULL,
    lag_rows bigint GENERATED ALWAYS AS (GREATEST((head - "position"), (0)::bigint)) STORED,
    lag_seconds double precision DEFAULT 0 NOT NULL,
    past_retention bigint DEFAULT 0 NOT NULL,
    synced_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sync_cursors_position_check CHECK (("position" >= 0))
)
WITH (fillfactor='50');
COMMENT ON TABLE public.sync_cursors IS 'How far each log of each gatherer is merged. A rebuilt gatherer has a new log_id and so a new cursor, from 0.';
COMMENT ON COLUMN public.sync_cursors."position" IS 'The last log_seq of that log whose row is in production.';
COMMENT ON COLUMN public.sync_cursors.head IS 'The log''s head when the cursor last moved.';
COMMENT ON COLUMN public.sync_cursors.lag_seconds IS 'Age of the newest row merged, by the gatherer''s clock, when the cursor last moved.';
COMMENT ON COLUMN public.sync_cursors.past_retention IS 'Rows of that log that came after their time had been dropped (logs.kept_from) and were not written.';
CREATE TABLE public.tickers (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
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
    gatherer_id smallint NOT NULL
)
PARTITION BY RANGE (exchange_ts);
COMMENT ON TABLE public.tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';
CREATE TABLE public.tickers_2026_08_05 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
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
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.tickers_2026_08_05 IS 'Rows of tickers of a week or a day.';
CREATE TABLE public.tickers_2026_08_06 (
    log_seq bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
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
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.tickers_2026_08_06 IS 'Rows of tickers of a week or a day.';
CREATE TABLE public.trades (
    log_seq bigint NOT NULL,
    trade_id uuid NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    price bigint NOT NULL,
    no_price bigint,
    size bigint NOT NULL,
    taker_side boolean,
    is_block_trade boolean NOT NULL,
    gatherer_id smallint NOT NULL
)
PARTITION BY RANGE (exchange_ts);
COMMENT ON TABLE public.trades IS 'Trades. Identity: trade_id; the time is in the key for the sake of partitions.';
COMMENT ON COLUMN public.trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN public.trades.received_at IS 'The clock of the gatherer whose copy came first.';
COMMENT ON COLUMN public.trades.price IS 'Price of the yes leg in micro-dollars.';
COMMENT ON COLUMN public.trades.no_price IS 'Price of the no leg in micro-dollars.';
COMMENT ON COLUMN public.trades.size IS 'Hundredths of a contract.';
COMMENT ON COLUMN public.trades.taker_side IS 'True: the taker is on yes.';
COMMENT ON COLUMN public.trades.gatherer_id IS 'Whose copy came first.';
CREATE TABLE public.trades_2026_07_30 (
    log_seq bigint NOT NULL,
    trade_id uuid NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    price bigint NOT NULL,
    no_price bigint,
    size bigint NOT NULL,
    taker_side boolean,
    is_block_trade boolean NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.trades_2026_07_30 IS 'Rows of trades of a week or a day.';
CREATE TABLE public.trades_2026_08_06 (
    log_seq bigint NOT NULL,
    trade_id uuid NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    ticker text NOT NULL COLLATE pg_catalog."C",
    price bigint NOT NULL,
    no_price bigint,
    size bigint NOT NULL,
    taker_side boolean,
    is_block_trade boolean NOT NULL,
    gatherer_id smallint NOT NULL
);
COMMENT ON TABLE public.trades_2026_08_06 IS 'Rows of trades of a week or a day.';
CREATE TABLE public.writer (
    singleton boolean DEFAULT true NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    holder text DEFAULT ''::text NOT NULL,
    acquired_at timestamp with time zone,
    CONSTRAINT writer_singleton_check CHECK (singleton)
);
COMMENT ON TABLE public.writer IS 'Which deduplicator may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';
ALTER TABLE ONLY public.coverage ATTACH PARTITION public.coverage_2026_07_30 FOR VALUES FROM ('1785456000000000') TO ('1786060800000000');
ALTER TABLE ONLY public.orderbook_deltas ATTACH PARTITION public.orderbook_deltas_2026_08_05 FOR VALUES FROM ('1785888000000000') TO ('1785974400000000');
ALTER TABLE ONLY public.orderbook_deltas ATTACH PARTITION public.orderbook_deltas_2026_08_06 FOR VALUES FROM ('1785974400000000') TO ('1786060800000000');
ALTER TABLE ONLY public.orderbook_snapshots ATTACH PARTITION public.orderbook_snapshots_2026_07_30 FOR VALUES FROM ('1785456000000000') TO ('1786060800000000');
ALTER TABLE ONLY public.tickers ATTACH PARTITION public.tickers_2026_08_05 FOR VALUES FROM ('1785888000000000') TO ('1785974400000000');
ALTER TABLE ONLY public.tickers ATTACH PARTITION public.tickers_2026_08_06 FOR VALUES FROM ('1785974400000000') TO ('1786060800000000');
ALTER TABLE ONLY public.trades ATTACH PARTITION public.trades_2026_07_30 FOR VALUES FROM ('1785456000000000') TO ('1786060800000000');
ALTER TABLE ONLY public.trades ATTACH PARTITION public.trades_2026_08_06 FOR VALUES FROM ('1786060800000000') TO ('1786665600000000');
INSERT INTO public.consumers VALUES
	('archive', 'trades', 2, '2026-08-05 04:00:00+00'),
	('archive', 'orderbook_deltas', 4, '2026-08-05 04:00:00+00');
INSERT INTO public.contributions VALUES
	('gatherer-1', 'trades', 1785898800000000, 3, 1, 1, 0),
	('gatherer-2', 'trades', 1785898800000000, 2, 1, 1, 0);
INSERT INTO public.contributions_open VALUES
	('trades', 0, '\x00010203040506070809101112131415000100064d7e5b1c2000'),
	('trades', 1, '\x');
INSERT INTO public.coverage_2026_07_30 VALUES
	(1, 'orderbook_delta', 'KXGOLD15M-26AUG050800-00', 1785901540000000, 1785901560000000, 1785901540722003, 1785901540800000, 3, 'gap', 'expected 6, got 8', 1785900000000000, 2, 1),
	(2, 'trade', '', 1785900000000000, 1785903600000000, NULL, NULL, NULL, 'crash', 'the gatherer ended without closing', 1785900000000000, 1, 1),
	(3, 'trade', '', 1785903600000000, 1785907200000000, 1785903600000001, 1785907199999999, 12, 'continues', '', 1785900000000000, 1, 2);
INSERT INTO public.events VALUES
	('KXGOLD15M-26AUG050800', 'KXGOLD15M', 'Gold at 08:00', 'Aug 5', 'Economics', true, 'MECNET', 1785916800000000, NULL, 1785800000000000, '{"event_ticker": "KXGOLD15M-26AUG050800"}', 12, 'listed', 1785900000000000);
INSERT INTO public.events_past VALUES
	('KXGOLD15M-26AUG050800', 'KXGOLD15M', 'Gold', 'Aug 5', 'Economics', true, 'MECNET', 1785916800000000, NULL, 1785700000000000, '{}', 9, 'listed', 1785700000000000, 1785900000000000);
INSERT INTO public.gatherers OVERRIDING SYSTEM VALUE VALUES
	(1, 'gatherer-1'),
	(2, 'gatherer-2');
INSERT INTO public.logs VALUES
	('trades', 'f5ff431a-5483-5a26-4839-1ecb03b3f90d', 3, 1785987941000000, NULL),
	('orderbook_snapshots', '096837ea-14b2-6104-94b9-c6e38be94d79', 3, 1785987941000000, NULL),
	('tickers', 'd166fd5c-b36a-faec-d573-4ebe764e1a9a', 3, 1785987941000000, NULL),
	('market_lifecycle', '8b961466-543f-967b-ddf6-280434c51ebf', 3, 1785987941000000, NULL),
	('coverage', 'ac2eb964-5915-6bec-d077-4e7c920b7fcc', 3, 1785987941000000, NULL),
	('orderbook_deltas', '4652d71b-2a90-5f88-b374-980bca714d20', 4, 1785987941000000, 1785888000000000);
INSERT INTO public.market_lifecycle VALUES
	(1, 'KXGOLD15M-26AUG050800-00', 'created', NULL, 1785901000000000, '{"open_ts": 1785901000, "event_type": "created"}', 5, 1),
	(2, 'KXGOLD15M-26AUG050800-00', 'determined', 1785902000000000, 1785902000000001, '{"text": "it''s\n\"quoted\"", "result": "yes"}', 6, 1),
	(3, 'KXGOLD15M-26AUG05', 'event_lifecycle', NULL, 1785902000000002, '{}', 7, 2);
INSERT INTO public.market_sync VALUES
	('series', 1785916900000000, 1785916900000001, 1785900000000000, 1785900001000000, 1, false, NULL, NULL, NULL, NULL),
	('events', 1785916900000000, 1785916900000001, 1785900000000000, 1785900001000000, 1, false, NULL, NULL, NULL, NULL),
	('markets', 1785916900000000, 1785916900000001, 1785900000000000, 1785900001000000, 1, false, NULL, NULL, NULL, NULL);
INSERT INTO public.markets VALUES
	('KXGOLD15M-26AUG050800-00', 'KXGOLD15M-26AUG050800', 'binary', 'Gold above 3,400?', 'Above 3,400', 'Not above', 'settled', 'finalized', 'yes', 1000000, 1785916900000000, '3401.5', 1785800000000000, 1785916900000000, 1785900000000000, 1785916800000000, 1785916800000000, 1786521600000000, 60, 1000000, 990000, 1234500, 99900, 'greater', '3400', NULL, 'linear_cent', NULL, '{"ticker": "KXGOLD15M-26AUG050800-00"}', 13, 'listed', 1785916900000000);
INSERT INTO public.markets_past VALUES
	('KXGOLD15M-26AUG050800-00', 'KXGOLD15M-26AUG050800', 'binary', 'Gold above 3,400?', 'Above 3,400', 'Not above', 'open', 'active', '', NULL, 1785916900000000, '3401.5', 1785800000000000, 1785916900000000, 1785900000000000, 1785916800000000, 1785916800000000, 1786521600000000, 60, 1000000, 990000, 1234500, 99900, 'greater', '3400', NULL, 'linear_cent', NULL, '{"ticker": "KXGOLD15M-26AUG050800-00"}', 8, 'listed', 1785900000000000, 1785916900000000);
INSERT INTO public.orderbook_deltas_2026_08_05 VALUES
	(1, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 1, 1),
	(2, 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', true, 960000, -5400, 2, 2),
	(3, 1785901540800000, 1785901540810000, 'KXGOLD15M-26AUG050800-00', false, 970000, 250, 1, 1);
INSERT INTO public.orderbook_deltas_2026_08_06 VALUES
	(4, 1785987940800000, 1785987940810000, 'KXGOLD15M-26AUG060800-00', false, 970000, 250, 1, 1);
INSERT INTO public.orderbook_snapshots_2026_07_30 VALUES
	(1, 1785901540000000, 1785901540722002, 'KXGOLD15M-26AUG050800-00', 'ws', '{80000,960000}', '{30000,10800}', '{980000}', '{2000}', 1785900000000000, 2, 2, 1),
	(2, 1785901550000000, NULL, 'KXGOLD15M-26AUG050800-00', 'rest', '{}', '{}', '{}', '{}', 1785900000000001, 0, 1, 2),
	(3, 1785901560000000, 1785901560000000, 'KXGOLD15M-26AUG050800-00', 'ws', '{}', '{}', '{}', '{}', 1785900000000000, 2, 9, 1);
INSERT INTO public.refinery_schema_history VALUES
	(1, 'logs', '2026-11-22T11:21:48.869086007Z', '6207436148132783685'),
	(2, 'markets', '2026-11-22T11:21:49.026512197Z', '8639573107812450909');
INSERT INTO public.series VALUES
	('KXGOLD15M', 'Gold in 15 minutes', 'Economics', 'fifteen_min', 'quadratic', '1', 1785800000000000, '{"ticker": "KXGOLD15M"}', 11, 'listed', 1785900000000000);
INSERT INTO public.series_past VALUES
	('KXGOLD15M', 'Gold', 'Economics', 'fifteen_min', 'quadratic', '1', 1785700000000000, '{}', 10, 'listed', 1785700000000000, 1785900000000000);
INSERT INTO public.sync_cursors VALUES
	('gatherer-1', 'trades', 'f2c944b1-9b14-440c-ddaf-c309c38b9737', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00'),
	('gatherer-1', 'orderbook_deltas', 'ee7acc67-69bc-880f-a94e-259d000eb8db', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00'),
	('gatherer-1', 'tickers', 'afd31940-5d37-725c-aa81-5ff5270bf599', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00'),
	('gatherer-2', 'trades', 'c2518ab3-c80d-07e1-1501-da978c64851f', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00'),
	('gatherer-2', 'orderbook_deltas', '87283b1c-da02-9254-b234-f9da02a538ad', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00'),
	('gatherer-2', 'tickers', 'a0573b59-713d-51ae-8461-8c06d67889cd', 3, 5, DEFAULT, 0.25, 1, '2026-08-05 04:00:00+00');
INSERT INTO public.tickers_2026_08_05 VALUES
	(1, 1785901540000000, 1785901540010000, 'KXGOLD15M-26AUG050800-00', 360000, 350000, 370000, 100, 250, 4602, 1234500, 99900, 16948, 10211, -81985529216486896, 1),
	(2, 1785901541000000, 1785901541010000, 'KXGOLD15M-26AUG050800-00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 2);
INSERT INTO public.tickers_2026_08_06 VALUES
	(3, 1785987941000000, 1785987941010000, 'KXGOLD15M-26AUG060800-00', 10000, 0, 20000, 0, 1, 2, 3, 4, 5, 6, 7, 1);
INSERT INTO public.trades_2026_07_30 VALUES
	(1, '11111111-1111-4111-8111-111111111111', 1785901540722003, 1785901540750000, 'KXGOLD15M-26AUG050800-00', 360000, 640000, 13600, true, false, 1),
	(2, '22222222-2222-4222-8222-222222222222', 1785901541000000, 1785901541020000, 'KXGOLD15M-26AUG050800-00', 365000, NULL, 4602, NULL, true, 2);
INSERT INTO public.trades_2026_08_06 VALUES
	(3, '33333333-3333-4333-8333-333333333333', 1786060800000001, 1786060800000900, 'KXGOLD15M-26AUG060800-00', 10000, 990000, 100, false, false, 1);
INSERT INTO public.writer VALUES
	(true, 2, 'deduplicator d (process 4712)', '2026-08-05 03:00:00+00');
SELECT pg_catalog.setval('public.gatherers_gatherer_id_seq', 2, true);
ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_pkey PRIMARY KEY (name, table_name);
ALTER TABLE ONLY public.contributions_open
    ADD CONSTRAINT contributions_open_pkey PRIMARY KEY (table_name, part);
ALTER TABLE ONLY public.contributions
    ADD CONSTRAINT contributions_pkey PRIMARY KEY (table_name, hour, gatherer);
ALTER TABLE ONLY public.coverage
    ADD CONSTRAINT coverage_pkey PRIMARY KEY (gatherer_id, session_id, sid, channel, ticker, covered_from);
ALTER TABLE ONLY public.coverage_2026_07_30
    ADD CONSTRAINT coverage_2026_07_30_pkey PRIMARY KEY (gatherer_id, session_id, sid, channel, ticker, covered_from);
ALTER TABLE ONLY public.events_past
    ADD CONSTRAINT events_past_pkey PRIMARY KEY (event_ticker, valid_from);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (event_ticker);
ALTER TABLE ONLY public.gatherers
    ADD CONSTRAINT gatherers_name_key UNIQUE (name);
ALTER TABLE ONLY public.gatherers
    ADD CONSTRAINT gatherers_pkey PRIMARY KEY (gatherer_id);
ALTER TABLE ONLY public.logs
    ADD CONSTRAINT logs_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.market_lifecycle
    ADD CONSTRAINT market_lifecycle_log_seq_key UNIQUE (log_seq);
ALTER TABLE ONLY public.market_lifecycle
    ADD CONSTRAINT market_lifecycle_pkey PRIMARY KEY (subject, event_type, content_hash);
ALTER TABLE ONLY public.market_sync
    ADD CONSTRAINT market_sync_pkey PRIMARY KEY (table_name);
ALTER TABLE ONLY public.markets_past
    ADD CONSTRAINT markets_past_pkey PRIMARY KEY (ticker, valid_from);
ALTER TABLE ONLY public.markets
    ADD CONSTRAINT markets_pkey PRIMARY KEY (ticker);
ALTER TABLE ONLY public.orderbook_deltas
    ADD CONSTRAINT orderbook_deltas_pkey PRIMARY KEY (ticker, exchange_ts, side, price, size_delta, occurrence);
ALTER TABLE ONLY public.orderbook_deltas_2026_08_05
    ADD CONSTRAINT orderbook_deltas_2026_08_05_pkey PRIMARY KEY (ticker, exchange_ts, side, price, size_delta, occurrence);
ALTER TABLE ONLY public.orderbook_deltas_2026_08_06
    ADD CONSTRAINT orderbook_deltas_2026_08_06_pkey PRIMARY KEY (ticker, exchange_ts, side, price, size_delta, occurrence);
ALTER TABLE ONLY public.orderbook_snapshots
    ADD CONSTRAINT orderbook_snapshots_pkey PRIMARY KEY (gatherer_id, session_id, sid, seq, received_at);
ALTER TABLE ONLY public.orderbook_snapshots_2026_07_30
    ADD CONSTRAINT orderbook_snapshots_2026_07_30_pkey PRIMARY KEY (gatherer_id, session_id, sid, seq, received_at);
ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.series_past
    ADD CONSTRAINT series_past_pkey PRIMARY KEY (ticker, valid_from);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (ticker);
ALTER TABLE ONLY public.sync_cursors
    ADD CONSTRAINT sync_cursors_pkey PRIMARY KEY (gatherer, table_name, log_id);
ALTER TABLE ONLY public.tickers
    ADD CONSTRAINT tickers_pkey PRIMARY KEY (ticker, exchange_ts, content_hash);
ALTER TABLE ONLY public.tickers_2026_08_05
    ADD CONSTRAINT tickers_2026_08_05_pkey PRIMARY KEY (ticker, exchange_ts, content_hash);
ALTER TABLE ONLY public.tickers_2026_08_06
    ADD CONSTRAINT tickers_2026_08_06_pkey PRIMARY KEY (ticker, exchange_ts, content_hash);
ALTER TABLE ONLY public.trades
    ADD CONSTRAINT trades_pkey PRIMARY KEY (trade_id, exchange_ts);
ALTER TABLE ONLY public.trades_2026_07_30
    ADD CONSTRAINT trades_2026_07_30_pkey PRIMARY KEY (trade_id, exchange_ts);
ALTER TABLE ONLY public.trades_2026_08_06
    ADD CONSTRAINT trades_2026_08_06_pkey PRIMARY KEY (trade_id, exchange_ts);
ALTER TABLE ONLY public.writer
    ADD CONSTRAINT writer_pkey PRIMARY KEY (singleton);
CREATE INDEX coverage_log_seq ON ONLY public.coverage USING btree (log_seq);
CREATE INDEX coverage_2026_07_30_log_seq_idx ON public.coverage_2026_07_30 USING btree (log_seq);
CREATE INDEX coverage_ticker ON ONLY public.coverage USING btree (ticker, channel, covered_from);
CREATE INDEX coverage_2026_07_30_ticker_channel_covered_from_idx ON public.coverage_2026_07_30 USING btree (ticker, channel, covered_from);
CREATE INDEX events_series ON public.events USING btree (series_ticker);
CREATE INDEX markets_event ON public.markets USING btree (event_ticker);
CREATE INDEX markets_status_close ON public.markets USING btree (status, close_ts);
CREATE INDEX orderbook_deltas_log_seq ON ONLY public.orderbook_deltas USING btree (log_seq);
CREATE INDEX orderbook_deltas_2026_08_05_log_seq_idx ON public.orderbook_deltas_2026_08_05 USING btree (log_seq);
CREATE INDEX orderbook_deltas_2026_08_06_log_seq_idx ON public.orderbook_deltas_2026_08_06 USING btree (log_seq);
CREATE INDEX orderbook_snapshots_log_seq ON ONLY public.orderbook_snapshots USING btree (log_seq);
CREATE INDEX orderbook_snapshots_2026_07_30_log_seq_idx ON public.orderbook_snapshots_2026_07_30 USING btree (log_seq);
CREATE INDEX orderbook_snapshots_ticker_anchor ON ONLY public.orderbook_snapshots USING btree (ticker, anchor_ts);
CREATE INDEX orderbook_snapshots_2026_07_30_ticker_anchor_ts_idx ON public.orderbook_snapshots_2026_07_30 USING btree (ticker, anchor_ts);
CREATE INDEX tickers_log_seq ON ONLY public.tickers USING btree (log_seq);
CREATE INDEX tickers_2026_08_05_log_seq_idx ON public.tickers_2026_08_05 USING btree (log_seq);
CREATE INDEX tickers_2026_08_06_log_seq_idx ON public.tickers_2026_08_06 USING btree (log_seq);
CREATE INDEX trades_log_seq ON ONLY public.trades USING btree (log_seq);
CREATE INDEX trades_2026_07_30_log_seq_idx ON public.trades_2026_07_30 USING btree (log_seq);
CREATE INDEX trades_ticker_time ON ONLY public.trades USING btree (ticker, exchange_ts);
CREATE INDEX trades_2026_07_30_ticker_exchange_ts_idx ON public.trades_2026_07_30 USING btree (ticker, exchange_ts);
CREATE INDEX trades_2026_08_06_log_seq_idx ON public.trades_2026_08_06 USING btree (log_seq);
CREATE INDEX trades_2026_08_06_ticker_exchange_ts_idx ON public.trades_2026_08_06 USING btree (ticker, exchange_ts);
ALTER INDEX public.coverage_log_seq ATTACH PARTITION public.coverage_2026_07_30_log_seq_idx;
ALTER INDEX public.coverage_pkey ATTACH PARTITION public.coverage_2026_07_30_pkey;
ALTER INDEX public.coverage_ticker ATTACH PARTITION public.coverage_2026_07_30_ticker_channel_covered_from_idx;
ALTER INDEX public.orderbook_deltas_log_seq ATTACH PARTITION public.orderbook_deltas_2026_08_05_log_seq_idx;
ALTER INDEX public.orderbook_deltas_pkey ATTACH PARTITION public.orderbook_deltas_2026_08_05_pkey;
ALTER INDEX public.orderbook_deltas_log_seq ATTACH PARTITION public.orderbook_deltas_2026_08_06_log_seq_idx;
ALTER INDEX public.orderbook_deltas_pkey ATTACH PARTITION public.orderbook_deltas_2026_08_06_pkey;
ALTER INDEX public.orderbook_snapshots_log_seq ATTACH PARTITION public.orderbook_snapshots_2026_07_30_log_seq_idx;
ALTER INDEX public.orderbook_snapshots_pkey ATTACH PARTITION public.orderbook_snapshots_2026_07_30_pkey;
ALTER INDEX public.orderbook_snapshots_ticker_anchor ATTACH PARTITION public.orderbook_snapshots_2026_07_30_ticker_anchor_ts_idx;
ALTER INDEX public.tickers_log_seq ATTACH PARTITION public.tickers_2026_08_05_log_seq_idx;
ALTER INDEX public.tickers_pkey ATTACH PARTITION public.tickers_2026_08_05_pkey;
ALTER INDEX public.tickers_log_seq ATTACH PARTITION public.tickers_2026_08_06_log_seq_idx;
ALTER INDEX public.tickers_pkey ATTACH PARTITION public.tickers_2026_08_06_pkey;
ALTER INDEX public.trades_log_seq ATTACH PARTITION public.trades_2026_07_30_log_seq_idx;
ALTER INDEX public.trades_pkey ATTACH PARTITION public.trades_2026_07_30_pkey;
ALTER INDEX public.trades_ticker_time ATTACH PARTITION public.trades_2026_07_30_ticker_exchange_ts_idx;
ALTER INDEX public.trades_log_seq ATTACH PARTITION public.trades_2026_08_06_log_seq_idx;
ALTER INDEX public.trades_pkey ATTACH PARTITION public.trades_2026_08_06_pkey;
ALTER INDEX public.trades_ticker_time ATTACH PARTITION public.trades_2026_08_06_ticker_exchange_ts_idx;
ALTER TABLE ONLY public.consumers
    ADD CONSTRAINT consumers_table_name_fkey FOREIGN KEY (table_name) REFERENCES public.logs(name);
