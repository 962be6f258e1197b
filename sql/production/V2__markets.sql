-- Series, events and markets as the exchange's REST lists them: what each row says now, what it said
-- before, and how far the copy is. No foreign keys: a market may be listed before its event, and an
-- event whose series is unknown is a fact all the same.
--
-- `series`, `events` and `markets` hold the version that is valid now, the `_past` tables every
-- version that no longer is, and the `_history` views both: one open version of each key, by the
-- primary key, and no gap or overlap between a key's versions, because the old version ends in the
-- statement that begins the new one. All times are microseconds since 1970 UTC.

CREATE TABLE series (
    ticker         text COLLATE "C" PRIMARY KEY,
    title          text,
    category       text,
    frequency      text,
    fee_type       text,
    fee_multiplier text,
    updated_ts     bigint,
    raw            jsonb  NOT NULL,
    content_hash   bigint NOT NULL,
    presence       text   NOT NULL CHECK (presence IN ('listed', 'archived', 'missing')),
    valid_from     bigint NOT NULL
);
COMMENT ON TABLE series IS 'Series (KXGOLD15M): groups of events that recur. The version that is valid now; series_history has all of them.';
COMMENT ON COLUMN series.ticker IS 'The exchange''s name of the series.';
COMMENT ON COLUMN series.title IS 'For people.';
COMMENT ON COLUMN series.category IS 'The exchange''s category, such as Economics.';
COMMENT ON COLUMN series.frequency IS 'How often events recur, as the exchange says it.';
COMMENT ON COLUMN series.fee_type IS 'How trading fees are computed, as the exchange names it.';
COMMENT ON COLUMN series.fee_multiplier IS 'The number in that computation, as sent.';
COMMENT ON COLUMN series.updated_ts IS 'When the exchange says that it changed the series.';

CREATE TABLE events (
    event_ticker           text COLLATE "C" PRIMARY KEY,
    series_ticker          text COLLATE "C",
    title                  text,
    sub_title              text,
    category               text,
    mutually_exclusive     boolean,
    collateral_return_type text,
    strike_ts              bigint,
    strike_period          text,
    updated_ts             bigint,
    raw                    jsonb  NOT NULL,
    content_hash           bigint NOT NULL,
    presence               text   NOT NULL CHECK (presence IN ('listed', 'archived', 'missing')),
    valid_from             bigint NOT NULL
);
CREATE INDEX events_series ON events (series_ticker);
COMMENT ON TABLE events IS 'Events: what the markets of one question share. The version that is valid now; events_history has all of them.';
COMMENT ON COLUMN events.event_ticker IS 'The exchange''s name of the event.';
COMMENT ON COLUMN events.series_ticker IS 'The series that it belongs to; the series may be unknown.';
COMMENT ON COLUMN events.title IS 'For people.';
COMMENT ON COLUMN events.sub_title IS 'For people, shorter.';
COMMENT ON COLUMN events.category IS 'The exchange''s category.';
COMMENT ON COLUMN events.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';
COMMENT ON COLUMN events.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';
COMMENT ON COLUMN events.strike_ts IS 'The date that the question is about (strike_date).';
COMMENT ON COLUMN events.strike_period IS 'The period that the question is about, as sent.';
COMMENT ON COLUMN events.updated_ts IS 'When the exchange says that it changed the event.';

CREATE TABLE markets (
    ticker                   text COLLATE "C" PRIMARY KEY,
    event_ticker             text COLLATE "C",
    market_type              text,
    title                    text,
    yes_sub_title            text,
    no_sub_title             text,
    status                   text CHECK (status IN ('unopened', 'open', 'closed', 'settled')),
    exchange_status          text,
    result                   text,
    settlement_value         bigint,
    settlement_ts            bigint,
    expiration_value         text,
    created_ts               bigint,
    updated_ts               bigint,
    open_ts                  bigint,
    close_ts                 bigint,
    expected_expiration_ts   bigint,
    latest_expiration_ts     bigint,
    settlement_timer_seconds bigint,
    notional_value           bigint,
    last_price               bigint,
    volume                   bigint,
    open_interest            bigint,
    strike_type              text,
    floor_strike             text,
    cap_strike               text,
    price_level_structure    text,
    mve_collection_ticker    text COLLATE "C",
    raw                      jsonb  NOT NULL,
    content_hash             bigint NOT NULL,
    presence                 text   NOT NULL CHECK (presence IN ('listed', 'archived', 'missing')),
    valid_from               bigint NOT NULL
);
CREATE INDEX markets_event ON markets (event_ticker);
CREATE INDEX markets_status_close ON markets (status, close_ts);
COMMENT ON TABLE markets IS 'Markets: the tradables. The version that is valid now; markets_history has all of them. Trading alone makes no new version: the tickers and trades logs have that.';
COMMENT ON COLUMN markets.ticker IS 'The exchange''s name of the market, as in the logs.';
COMMENT ON COLUMN markets.event_ticker IS 'The event that it belongs to; the event may be unknown.';
COMMENT ON COLUMN markets.market_type IS 'binary, scalar, or one that is new.';
COMMENT ON COLUMN markets.title IS 'For people.';
COMMENT ON COLUMN markets.yes_sub_title IS 'What yes means, for people.';
COMMENT ON COLUMN markets.no_sub_title IS 'What no means, for people.';
COMMENT ON COLUMN markets.status IS 'unopened (initialized), open (active, inactive), closed (closed, determined, disputed, amended) or settled (finalized); null when exchange_status is one that this version does not know. inactive is a pause within open.';
COMMENT ON COLUMN markets.exchange_status IS 'As the exchange names it: initialized, active, inactive, closed, determined, disputed, amended, finalized, or one that is new.';
COMMENT ON COLUMN markets.result IS 'yes, no, scalar, or empty while there is none; as sent.';
COMMENT ON COLUMN markets.settlement_value IS 'What a yes contract pays, in micro-dollars; for a scalar result anything up to the notional value. Null until the exchange says it.';
COMMENT ON COLUMN markets.settlement_ts IS 'When it was settled.';
COMMENT ON COLUMN markets.expiration_value IS 'The observed value that decided it, as sent.';
COMMENT ON COLUMN markets.created_ts IS 'When the exchange created it.';
COMMENT ON COLUMN markets.updated_ts IS 'When the exchange says that it changed something other than trading.';
COMMENT ON COLUMN markets.open_ts IS 'Trading begins.';
COMMENT ON COLUMN markets.close_ts IS 'Trading ends.';
COMMENT ON COLUMN markets.expected_expiration_ts IS 'When the exchange expects to know the result.';
COMMENT ON COLUMN markets.latest_expiration_ts IS 'The last moment at which the result is known.';
COMMENT ON COLUMN markets.settlement_timer_seconds IS 'From the determination to the settlement, in seconds.';
COMMENT ON COLUMN markets.notional_value IS 'What the yes and the no contract pay together, in micro-dollars.';
COMMENT ON COLUMN markets.last_price IS 'Price of the last trade in micro-dollars when this version was read; trading alone makes no new version.';
COMMENT ON COLUMN markets.volume IS 'Hundredths of contracts traded when this version was read; final in a settled market.';
COMMENT ON COLUMN markets.open_interest IS 'Hundredths of contracts that were open when this version was read.';
COMMENT ON COLUMN markets.strike_type IS 'How the strikes are meant: greater, between, custom, ...';
COMMENT ON COLUMN markets.floor_strike IS 'The lower strike, as sent.';
COMMENT ON COLUMN markets.cap_strike IS 'The upper strike, as sent.';
COMMENT ON COLUMN markets.price_level_structure IS 'The exchange''s name of the price steps; raw has price_ranges.';
COMMENT ON COLUMN markets.mve_collection_ticker IS 'The collection of a multivariate (combo) market; null for all others.';

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['series', 'events', 'markets'] LOOP
        EXECUTE format('COMMENT ON COLUMN %I.raw IS %L', t,
            'The whole object as REST listed it, with every field that has no column.');
        EXECUTE format('COMMENT ON COLUMN %I.content_hash IS %L', t,
            'Of raw without the figures that trading changes: another hash is another version.');
        EXECUTE format('COMMENT ON COLUMN %I.presence IS %L', t,
            'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.');
        EXECUTE format('COMMENT ON COLUMN %I.valid_from IS %L', t,
            'When this version was received.');
    END LOOP;
END $$;

CREATE TABLE series_past (
    LIKE series INCLUDING COMMENTS,
    valid_to bigint NOT NULL CHECK (valid_to > valid_from),
    PRIMARY KEY (ticker, valid_from)
);
CREATE TABLE events_past (
    LIKE events INCLUDING COMMENTS,
    valid_to bigint NOT NULL CHECK (valid_to > valid_from),
    PRIMARY KEY (event_ticker, valid_from)
);
CREATE TABLE markets_past (
    LIKE markets INCLUDING COMMENTS,
    valid_to bigint NOT NULL CHECK (valid_to > valid_from),
    PRIMARY KEY (ticker, valid_from)
);
COMMENT ON TABLE series_past IS 'Versions of series that are no longer valid.';
COMMENT ON TABLE events_past IS 'Versions of events that are no longer valid.';
COMMENT ON TABLE markets_past IS 'Versions of markets that are no longer valid.';
COMMENT ON COLUMN series_past.valid_to IS 'When the next version was received.';
COMMENT ON COLUMN events_past.valid_to IS 'When the next version was received.';
COMMENT ON COLUMN markets_past.valid_to IS 'When the next version was received.';

CREATE VIEW series_history AS
    SELECT *, NULL::bigint AS valid_to FROM series UNION ALL SELECT * FROM series_past;
CREATE VIEW events_history AS
    SELECT *, NULL::bigint AS valid_to FROM events UNION ALL SELECT * FROM events_past;
CREATE VIEW markets_history AS
    SELECT *, NULL::bigint AS valid_to FROM markets UNION ALL SELECT * FROM markets_past;
COMMENT ON VIEW series_history IS 'Every version of every series: valid from valid_from up to valid_to, which is null in the one that is valid now.';
COMMENT ON VIEW events_history IS 'Every version of every event: valid from valid_from up to valid_to, which is null in the one that is valid now.';
COMMENT ON VIEW markets_history IS 'Every version of every market: valid from valid_from up to valid_to, which is null in the one that is valid now.';

CREATE TABLE market_sync (
    table_name   text   PRIMARY KEY,
    synced_until bigint,
    synced_at    bigint,
    full_from    bigint,
    full_ended   bigint,
    rows_listed  bigint,
    to_confirm   boolean NOT NULL DEFAULT true,
    part         smallint,
    cursor       text,
    cursor_from  bigint,
    cursor_rows  bigint
);
COMMENT ON TABLE market_sync IS 'How far series, events and markets are copied. Moves in the transaction of the rows.';
COMMENT ON COLUMN market_sync.table_name IS 'series, events or markets.';
COMMENT ON COLUMN market_sync.synced_until IS 'Everything that the exchange changed up to here is in the table; null before the first complete list.';
COMMENT ON COLUMN market_sync.synced_at IS 'When the last list, complete or of changes, ended.';
COMMENT ON COLUMN market_sync.full_from IS 'When the last complete list began.';
COMMENT ON COLUMN market_sync.full_ended IS 'When the last complete list ended.';
COMMENT ON COLUMN market_sync.rows_listed IS 'Keys in the last complete list.';
COMMENT ON COLUMN market_sync.to_confirm IS 'True: the last complete list differed from what was known in a way that a list which shifted while it was read would also cause; another one is read at once.';
COMMENT ON COLUMN market_sync.part IS 'Of a first complete list under way: which of its lists is being read, from 0.';
COMMENT ON COLUMN market_sync.cursor IS 'Of a first complete list under way: the exchange''s cursor of the next page. A restart goes on there.';
COMMENT ON COLUMN market_sync.cursor_from IS 'Of a first complete list under way: when it began.';
COMMENT ON COLUMN market_sync.cursor_rows IS 'Of a first complete list under way: rows of the pages so far.';
INSERT INTO market_sync (table_name) VALUES ('series'), ('events'), ('markets');

DO $$
DECLARE
    t text;
    c record;
BEGIN
    FOREACH t IN ARRAY ARRAY['series', 'events', 'markets'] LOOP
        FOR c IN
            SELECT a.attname, col_description(a.attrelid, a.attnum) AS text
            FROM pg_attribute a
            WHERE a.attrelid = (t || '_past')::regclass AND a.attnum > 0 AND NOT a.attisdropped
        LOOP
            EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', t || '_history', c.attname, c.text);
        END LOOP;
    END LOOP;
END $$;
