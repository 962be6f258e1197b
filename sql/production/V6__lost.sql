-- What is known to be lost. Coverage says what gatherers saw; `kalshi verify books` proves it, and where
-- the proof fails (a snapshot contradicts the changes before it, and no gatherer had noticed a hole),
-- `--repair` writes the interval down here, since no exchange tells a change twice. From then on books in
-- such an interval are not called covered: book_at, book_known_at, books_between, top_of_book and covered
-- all ask here.
--
-- An interval (from_ts, to_ts] lies between two snapshots: the book at from_ts is right, and so is the
-- one at to_ts, which is folded from the second. Rows are only ever added.

CREATE TABLE lost (
    lost_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel     text COLLATE "C" NOT NULL,
    ticker      text COLLATE "C" NOT NULL,
    from_ts     bigint NOT NULL,
    to_ts       bigint NOT NULL CHECK (to_ts >= from_ts),
    detail      text   NOT NULL,
    recorded_at bigint NOT NULL
);
CREATE INDEX lost_ticker ON lost (ticker, channel, from_ts);
COMMENT ON TABLE lost IS 'Intervals in which rows are known to be missing or wrong, and cannot be had any more. Written by kalshi verify --repair, never changed.';
COMMENT ON COLUMN lost.lost_id IS 'Order in which they were found.';
COMMENT ON COLUMN lost.channel IS 'The exchange''s channel: orderbook_delta.';
COMMENT ON COLUMN lost.ticker IS 'The exchange''s name of the market.';
COMMENT ON COLUMN lost.from_ts IS 'The exchange''s clock at the last snapshot that the record agrees with, microseconds since 1970 UTC; the interval begins behind it.';
COMMENT ON COLUMN lost.to_ts IS 'The exchange''s clock at the snapshot that puts it right, or as far as was looked, microseconds since 1970 UTC; the interval ends with it.';
COMMENT ON COLUMN lost.detail IS 'What showed it, for people.';
COMMENT ON COLUMN lost.recorded_at IS 'When it was written down, microseconds since 1970 UTC.';

CREATE FUNCTION book_lost(ticker text, from_ts bigint, to_ts bigint)
    RETURNS SETOF lost
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1
    BEGIN ATOMIC
        SELECT * FROM lost l
        WHERE l.ticker = book_lost.ticker AND l.channel = 'orderbook_delta'
          AND l.from_ts < book_lost.to_ts AND l.to_ts > book_lost.from_ts
        ORDER BY l.from_ts;
    END;
COMMENT ON FUNCTION book_lost(text, bigint, bigint) IS 'The intervals in which changes of a market''s book are known to be lost, between two times of the exchange in microseconds; the first of them first.';

-- As before, and no further than to the first loss behind the anchor.
CREATE OR REPLACE FUNCTION book_covered_until(anchor orderbook_snapshots, to_ts bigint)
    RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = public, pg_temp
    AS $$
DECLARE
    hour constant bigint := 3600000000;
    reach bigint := anchor.anchor_ts;
    first_lost constant bigint := (
        SELECT greatest(l.from_ts, anchor.anchor_ts)
        FROM book_lost(anchor.ticker, anchor.anchor_ts, book_covered_until.to_ts) AS l LIMIT 1);
    stretch record;
BEGIN
    FOR stretch IN
        SELECT CASE WHEN s.gatherer_id = anchor.gatherer_id AND s.session_id = anchor.session_id
                         AND s.sid = anchor.sid
                         AND anchor.received_at BETWEEN s.covered_from AND s.covered_to
                    -- The snapshot stands in this very stretch: nothing is missing behind it.
                    THEN least(s.from_ts, anchor.anchor_ts + 1) ELSE s.from_ts END AS begins,
               s.to_ts AS ends
        FROM book_stretches(
            anchor.ticker, anchor.received_at - hour,
            anchor.received_at + greatest(book_covered_until.to_ts - anchor.anchor_ts, 0) + hour
        ) AS s
        ORDER BY 1
    LOOP
        EXIT WHEN stretch.begins > reach + 1 OR reach >= book_covered_until.to_ts;
        reach := greatest(reach, stretch.ends);
    END LOOP;
    RETURN least(reach, book_covered_until.to_ts, coalesce(first_lost, reach));
END
$$;

CREATE OR REPLACE FUNCTION covered(ticker text, from_at timestamptz, to_at timestamptz)
    RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = public, pg_temp
    AS $$
DECLARE
    day constant bigint := 86400000000;
    reach bigint := micros(from_at) - 1;
    stretch record;
BEGIN
    IF to_at < from_at THEN
        RAISE EXCEPTION 'to_at is before from_at' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM book_lost(covered.ticker, micros(from_at) - 1, micros(to_at))) THEN
        RETURN false;
    END IF;
    FOR stretch IN
        SELECT s.from_ts, s.to_ts
        FROM book_stretches(covered.ticker, micros(from_at) - day, micros(to_at) + day) AS s
        ORDER BY s.from_ts
    LOOP
        EXIT WHEN stretch.from_ts > reach + 1 OR reach >= micros(to_at);
        reach := greatest(reach, stretch.to_ts);
    END LOOP;
    RETURN reach >= micros(to_at);
END
$$;

CREATE OR REPLACE FUNCTION book_known_at(ticker text, at timestamptz)
    RETURNS TABLE (
        known boolean, covered boolean, reason text, anchor_time timestamptz,
        covered_until timestamptz, anchor_ts bigint, anchor_log_seq bigint
    )
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1
    SET search_path = public, pg_temp
    AS $$
DECLARE
    at_ts constant bigint := micros(at);
    kept_from constant bigint := (SELECT l.kept_from FROM logs l WHERE l.name = 'orderbook_deltas');
    anchor orderbook_snapshots;
    until_ts bigint;
    loss lost;
BEGIN
    SELECT * INTO anchor FROM book_anchor(book_known_at.ticker, at_ts);
    IF anchor.anchor_ts IS NULL THEN
        known := false;
        covered := false;
        reason := 'no snapshot of the market is anchored at or before this time';
        RETURN NEXT;
        RETURN;
    END IF;
    anchor_ts := anchor.anchor_ts;
    anchor_time := moment(anchor.anchor_ts);
    anchor_log_seq := anchor.log_seq;
    IF anchor.anchor_ts < at_ts AND anchor.anchor_ts + 1 < kept_from THEN
        known := false;
        covered := false;
        reason := format('the changes before %s were dropped by the retention, and no snapshot since then is anchored at or before this time',
                         moment(kept_from));
        RETURN NEXT;
        RETURN;
    END IF;
    until_ts := book_covered_until(anchor, at_ts);
    known := true;
    covered := until_ts >= at_ts;
    covered_until := moment(until_ts);
    IF NOT covered THEN
        SELECT * INTO loss FROM book_lost(book_known_at.ticker, anchor.anchor_ts, at_ts) LIMIT 1;
        IF loss.lost_id IS NOT NULL AND greatest(loss.from_ts, anchor.anchor_ts) <= until_ts THEN
            reason := format('changes between %s and %s are lost: %s',
                             moment(loss.from_ts), moment(loss.to_ts), loss.detail);
        ELSE
            reason := format('coverage since the snapshot reaches to %s only, so far', covered_until);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;

-- Whoever may read the logs may read what is lost of them. The roles may be made later or elsewhere.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN SELECT rolname FROM pg_roles WHERE rolname IN ('deduplicator', 'exporter') LOOP
        EXECUTE format('GRANT SELECT ON lost TO %I', reader);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'deduplicator') THEN
        GRANT INSERT ON lost TO deduplicator;
    END IF;
END
$$;
