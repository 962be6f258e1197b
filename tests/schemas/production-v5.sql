
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

ALTER TABLE public.orderbook_snapshots OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_snapshots IS 'Full books, kept from every gatherer: each anchors that gatherer''s stream.';

COMMENT ON COLUMN public.orderbook_snapshots.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_snapshots.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.orderbook_snapshots.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; null when it stands between two deltas of one microsecond.';

COMMENT ON COLUMN public.orderbook_snapshots.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_snapshots.source IS 'ws: from the stream. rest: polled beside it, without a place in it and so without an anchor.';

COMMENT ON COLUMN public.orderbook_snapshots.yes_prices IS 'Bids for yes: prices in micro-dollars, ascending; yes_sizes has the size of each.';

COMMENT ON COLUMN public.orderbook_snapshots.yes_sizes IS 'Hundredths of a contract at each of yes_prices.';

COMMENT ON COLUMN public.orderbook_snapshots.no_prices IS 'Bids for no, which ask for yes: prices in micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.';

COMMENT ON COLUMN public.orderbook_snapshots.no_sizes IS 'Hundredths of a contract at each of no_prices.';

COMMENT ON COLUMN public.orderbook_snapshots.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.orderbook_snapshots.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_snapshots.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.orderbook_snapshots.gatherer_id IS 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.';

CREATE FUNCTION public.book_anchor(ticker text, at_ts bigint) RETURNS SETOF public.orderbook_snapshots
    LANGUAGE plpgsql STABLE ROWS 1 PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
DECLARE
    hour constant bigint := 3600000000;
    span bigint;
BEGIN
    -- Snapshots are partitioned by our clock, anchors are times of the exchange. The two are seconds
    -- apart, but for a clock that is wrong or a replay of old frames: then all partitions are asked.
    -- Any anchor gives the right book, so one that hides behind a wrong clock is no fault.
    FOREACH span IN ARRAY ARRAY[10 * hour, 10 * 24 * hour] LOOP
        RETURN QUERY
            SELECT s.* FROM orderbook_snapshots s
            WHERE s.ticker = book_anchor.ticker AND s.anchor_ts <= at_ts
              AND s.anchor_ts > at_ts - span
              AND s.received_at > at_ts - span - hour AND s.received_at < at_ts + hour
            ORDER BY s.anchor_ts DESC, s.log_seq DESC LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
    END LOOP;
    RETURN QUERY
        SELECT s.* FROM orderbook_snapshots s
        WHERE s.ticker = book_anchor.ticker AND s.anchor_ts <= at_ts
        ORDER BY s.anchor_ts DESC, s.log_seq DESC LIMIT 1;
END
$$;

ALTER FUNCTION public.book_anchor(ticker text, at_ts bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_anchor(ticker text, at_ts bigint) IS 'The newest snapshot of a market that is anchored at or before a time in microseconds; no row when there is none.';

CREATE FUNCTION public.book_at(ticker text, at timestamp with time zone) RETURNS TABLE(side boolean, price bigint, size bigint, side_name text, price_dollars numeric, contracts numeric, covered boolean, anchor_time timestamp with time zone)
    LANGUAGE plpgsql STABLE ROWS 100 PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
DECLARE
    at_ts constant bigint := micros(at);
    kept_from constant bigint := (SELECT l.kept_from FROM logs l WHERE l.name = 'orderbook_deltas');
    anchor orderbook_snapshots;
    is_covered boolean;
BEGIN
    SELECT * INTO anchor FROM book_anchor(book_at.ticker, at_ts);
    IF anchor.anchor_ts IS NULL THEN
        RETURN;
    END IF;
    IF anchor.anchor_ts < at_ts AND anchor.anchor_ts + 1 < kept_from THEN
        RAISE EXCEPTION 'the book of % at % is not known any more: the changes before % were dropped',
            book_at.ticker, at, moment(kept_from)
            USING ERRCODE = 'no_data_found',
                  HINT = 'book_known_at tells without an error; the book at the anchor of each snapshot is still known.';
    END IF;
    is_covered := book_covered_until(anchor, at_ts) >= at_ts;
    RETURN QUERY
        SELECT l.side, l.price, sum(l.size)::bigint, yes_no(l.side), dollars(l.price),
               contracts(sum(l.size)::bigint), is_covered, moment(anchor.anchor_ts)
        FROM (
            SELECT true AS side, u.price, u.size
            FROM unnest(anchor.yes_prices, anchor.yes_sizes) AS u (price, size)
            UNION ALL
            SELECT false, u.price, u.size
            FROM unnest(anchor.no_prices, anchor.no_sizes) AS u (price, size)
            UNION ALL
            SELECT d.side, d.price, d.size_delta
            FROM orderbook_deltas d
            WHERE d.ticker = book_at.ticker
              AND d.exchange_ts > anchor.anchor_ts AND d.exchange_ts <= at_ts
        ) AS l
        GROUP BY l.side, l.price
        HAVING sum(l.size) <> 0
        -- The best of each side first.
        ORDER BY l.side DESC, CASE WHEN l.side THEN -l.price ELSE l.price END;
END
$$;

ALTER FUNCTION public.book_at(ticker text, at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_at(ticker text, at timestamp with time zone) IS 'The levels of a market''s book at a time of the exchange, after all changes up to and with that microsecond, the best of each side first. side: true is yes. price: micro-dollars in yes-leg terms on both sides, so that yes levels bid for yes and no levels ask for it. size: hundredths of a contract. Then the same as yes or no, dollars, contracts. covered: whether coverage says that nothing is missing since the snapshot at anchor_time; without it the book may be wrong. No rows: the book is empty, or no snapshot is anchored before; book_known_at tells which. An error where the retention has dropped changes that it would need.';

CREATE FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    hour constant bigint := 3600000000;
    reach bigint := anchor.anchor_ts;
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
    RETURN least(reach, book_covered_until.to_ts);
END
$$;

ALTER FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) IS 'Up to which time of the exchange, to_ts at most, no change since a snapshot''s anchor is missing as far as coverage says; microseconds. The anchor itself when it says nothing.';

CREATE FUNCTION public.book_known_at(ticker text, at timestamp with time zone) RETURNS TABLE(known boolean, covered boolean, reason text, anchor_time timestamp with time zone, covered_until timestamp with time zone, anchor_ts bigint, anchor_log_seq bigint)
    LANGUAGE plpgsql STABLE ROWS 1 PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    at_ts constant bigint := micros(at);
    kept_from constant bigint := (SELECT l.kept_from FROM logs l WHERE l.name = 'orderbook_deltas');
    anchor orderbook_snapshots;
    until_ts bigint;
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
        reason := format('coverage since the snapshot reaches to %s only, so far', covered_until);
    END IF;
    RETURN NEXT;
END
$$;

ALTER FUNCTION public.book_known_at(ticker text, at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_known_at(ticker text, at timestamp with time zone) IS 'What can be said of a market''s book at a time; always one row. known: book_at gives it, and no level means an empty book. covered: all changes since the anchor are there, as far as the gatherers know. reason: why one of the two is false. anchor_time, anchor_ts (microseconds), anchor_log_seq: the snapshot it is folded from. covered_until: how far coverage reaches from there, at most to the time asked for.';

CREATE FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) RETURNS TABLE(exchange_ts bigint, yes_prices bigint[], yes_sizes bigint[], no_prices bigint[], no_sizes bigint[], covered boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
DECLARE
    hour constant bigint := 3600000000;
    kept_from constant bigint := (SELECT l.kept_from FROM logs l WHERE l.name = 'orderbook_deltas');
    known boolean;
    anchor orderbook_snapshots;
    -- Up to when nothing since the last anchor is missing.
    reach bigint;
    -- The book, ascending by price.
    yp bigint[] := '{}';
    ys bigint[] := '{}';
    np bigint[] := '{}';
    ns bigint[] := '{}';
    prices bigint[];
    sizes bigint[];
    place integer;
    -- What the last row said, of a book or of its top.
    said bigint[];
    now_said bigint[];
    -- The time of the state, and of the next row where they come at an interval.
    state_ts bigint := from_ts;
    tick_ts bigint := from_ts;
    far_snapshots boolean;
    event record;
BEGIN
    IF to_ts < from_ts OR every_micros <= 0 THEN
        RAISE EXCEPTION 'to_at must not be before from_at, and an interval must be above 0'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO anchor FROM book_anchor(book_states.ticker, from_ts);
    known := anchor.anchor_ts IS NOT NULL
             AND (anchor.anchor_ts = from_ts OR kept_from IS NULL
                  OR anchor.anchor_ts + 1 >= kept_from);
    IF known THEN
        SELECT coalesce(array_agg(b.price ORDER BY b.price) FILTER (WHERE b.side), '{}'),
               coalesce(array_agg(b.size ORDER BY b.price) FILTER (WHERE b.side), '{}'),
               coalesce(array_agg(b.price ORDER BY b.price) FILTER (WHERE NOT b.side), '{}'),
               coalesce(array_agg(b.size ORDER BY b.price) FILTER (WHERE NOT b.side), '{}')
        INTO yp, ys, np, ns
        FROM book_at(book_states.ticker, moment(from_ts)) AS b;
        reach := book_covered_until(anchor, to_ts);
    ELSIF from_ts < kept_from THEN
        RAISE EXCEPTION 'the books of % from % on are not known any more: the changes before % were dropped',
            book_states.ticker, moment(from_ts), moment(kept_from)
            USING ERRCODE = 'no_data_found';
    END IF;
    -- As in book_anchor: only where our clock is not the exchange's, all partitions are read.
    far_snapshots := anchor.anchor_ts IS NULL
                     OR abs(anchor.received_at - anchor.anchor_ts) > hour;

    FOR event IN
        SELECT d.exchange_ts AS ts, d.side, d.price, d.size_delta, NULL::bigint AS log_seq,
               NULL::orderbook_snapshots AS snapshot
        FROM orderbook_deltas d
        WHERE d.ticker = book_states.ticker AND d.exchange_ts > from_ts AND d.exchange_ts <= to_ts
        UNION ALL
        SELECT s.anchor_ts, NULL, NULL, NULL, s.log_seq, s
        FROM orderbook_snapshots s
        WHERE s.ticker = book_states.ticker AND s.anchor_ts > from_ts AND s.anchor_ts <= to_ts
          AND (far_snapshots OR s.received_at > from_ts - hour AND s.received_at < to_ts + hour)
        UNION ALL
        SELECT to_ts + 1, NULL, NULL, NULL, NULL, NULL
        -- A snapshot stands behind the changes of its microsecond; of several the last counts.
        ORDER BY ts, log_seq NULLS FIRST
    LOOP
        IF event.ts > state_ts AND known THEN
            -- All of one microsecond is in: the state holds until the next event.
            IF every_micros IS NOT NULL THEN
                WHILE tick_ts < event.ts LOOP
                    exchange_ts := tick_ts;
                    yes_prices := yp; yes_sizes := ys; no_prices := np; no_sizes := ns;
                    covered := tick_ts <= reach;
                    RETURN NEXT;
                    tick_ts := tick_ts + every_micros;
                END LOOP;
            ELSE
                IF tops_only THEN
                    now_said := ARRAY[yp[cardinality(yp)], ys[cardinality(ys)], np[1], ns[1]];
                ELSE
                    now_said := yp || ys || NULL::bigint || np || ns;
                END IF;
                IF now_said IS DISTINCT FROM said THEN
                    exchange_ts := state_ts;
                    IF tops_only THEN
                        yes_prices := now_said[1:1]; yes_sizes := now_said[2:2];
                        no_prices := now_said[3:3]; no_sizes := now_said[4:4];
                    ELSE
                        yes_prices := yp; yes_sizes := ys; no_prices := np; no_sizes := ns;
                    END IF;
                    covered := state_ts <= reach;
                    RETURN NEXT;
                    said := now_said;
                END IF;
            END IF;
        END IF;
        IF event.ts > state_ts AND NOT known THEN
            -- Rows at an interval begin with the first of them at which the book is known.
            WHILE tick_ts < event.ts LOOP
                tick_ts := tick_ts + coalesce(every_micros, event.ts - tick_ts);
            END LOOP;
        END IF;
        state_ts := event.ts;
        IF event.log_seq IS NOT NULL THEN
            anchor := event.snapshot;
            SELECT coalesce(array_agg(u.p ORDER BY u.p), '{}'),
                   coalesce(array_agg(u.q ORDER BY u.p), '{}')
            INTO yp, ys
            FROM unnest(anchor.yes_prices, anchor.yes_sizes) AS u (p, q) WHERE u.q <> 0;
            SELECT coalesce(array_agg(u.p ORDER BY u.p), '{}'),
                   coalesce(array_agg(u.q ORDER BY u.p), '{}')
            INTO np, ns
            FROM unnest(anchor.no_prices, anchor.no_sizes) AS u (p, q) WHERE u.q <> 0;
            IF reach IS NULL OR reach < to_ts THEN
                reach := book_covered_until(anchor, to_ts);
            END IF;
            known := true;
        ELSIF event.price IS NOT NULL AND known THEN
            IF event.side THEN
                prices := yp; sizes := ys;
            ELSE
                prices := np; sizes := ns;
            END IF;
            -- The last level at or below the price: a binary search.
            place := width_bucket(event.price, prices);
            IF place > 0 AND prices[place] = event.price THEN
                IF sizes[place] + event.size_delta <> 0 THEN
                    sizes[place] := sizes[place] + event.size_delta;
                ELSE
                    prices := prices[:place - 1] || prices[place + 1:];
                    sizes := sizes[:place - 1] || sizes[place + 1:];
                END IF;
            ELSE
                prices := prices[:place] || event.price || prices[place + 1:];
                sizes := sizes[:place] || event.size_delta || sizes[place + 1:];
            END IF;
            IF event.side THEN
                yp := prices; ys := sizes;
            ELSE
                np := prices; ns := sizes;
            END IF;
        END IF;
    END LOOP;
END
$$;

ALTER FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) IS 'What books_between and top_of_book are made of; times in microseconds, prices in micro-dollars, sizes in hundredths of a contract. With tops_only each array holds the best level alone, and rows come when that changes.';

CREATE FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) RETURNS TABLE(gatherer_id smallint, session_id bigint, sid bigint, covered_from bigint, covered_to bigint, from_ts bigint, to_ts bigint)
    LANGUAGE plpgsql STABLE ROWS 50 PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
DECLARE
    second constant bigint := 1000000;
    day constant bigint := 86400 * second;
BEGIN
    RETURN QUERY
        SELECT c.gatherer_id, c.session_id, c.sid, c.covered_from, c.covered_to,
               -- Where the exchange's times are of another day (a replay), only they count.
               CASE WHEN c.is_replay THEN c.first_exchange_ts
                    WHEN c.follows THEN least(c.first_exchange_ts, c.covered_from)
                    ELSE least(c.first_exchange_ts, c.covered_from + second) END,
               CASE WHEN c.is_replay THEN c.last_exchange_ts
                    WHEN c.is_followed THEN greatest(c.last_exchange_ts, c.covered_to)
                    ELSE greatest(c.last_exchange_ts, c.covered_to - second) END
        FROM (
            SELECT c.*,
                   coalesce(lag(c.ended_by) OVER w = 'continues'
                            AND lag(c.covered_to) OVER w = c.covered_from, false) AS follows,
                   coalesce(c.ended_by = 'continues'
                            AND lead(c.covered_from) OVER w = c.covered_to, false) AS is_followed,
                   coalesce(abs(c.last_exchange_ts - c.covered_to) > day, false) AS is_replay
            FROM coverage c
            WHERE c.ticker = book_stretches.ticker AND c.channel = 'orderbook_delta'
              AND c.covered_from > clock_from - day AND c.covered_from <= clock_to
            WINDOW w AS (PARTITION BY c.gatherer_id, c.session_id, c.sid ORDER BY c.covered_from)
        ) AS c
        WHERE c.covered_to >= clock_from AND c.ended_by <> 'integrity';
END
$$;

ALTER FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) IS 'What coverage says of a market''s book between two times of the gatherers'' clocks, in microseconds: each stretch, and from_ts to to_ts, the times of the exchange in which it missed nothing.';

CREATE FUNCTION public.dollars(micro_dollars bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((micro_dollars)::numeric * 0.000001);

ALTER FUNCTION public.dollars(micro_dollars bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.dollars(micro_dollars bigint) IS 'Dollars, with 6 decimals, of micro-dollars, the form of all prices in tables. Exact.';

CREATE FUNCTION public.micros(moment timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((EXTRACT(epoch FROM (moment - '1970-01-01 00:00:00+00'::timestamp with time zone)) * (1000000)::numeric))::bigint;

ALTER FUNCTION public.micros(moment timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.micros(moment timestamp with time zone) IS 'Microseconds since 1970 UTC, the form of all times in tables. Exact. A condition with it on exchange_ts uses indexes and partitions.';

CREATE FUNCTION public.moment(micros bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(((micros)::double precision / (1000000)::double precision));

ALTER FUNCTION public.moment(micros bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.moment(micros bigint) IS 'The time that microseconds since 1970 UTC say. Exact to the microsecond from 1900 to 2100.';

CREATE FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval DEFAULT NULL::interval) RETURNS TABLE(at timestamp with time zone, yes_prices bigint[], yes_sizes bigint[], no_prices bigint[], no_sizes bigint[], bid_dollars numeric, ask_dollars numeric, covered boolean, exchange_ts bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT public.moment(b.exchange_ts) AS moment,
     b.yes_prices,
     b.yes_sizes,
     b.no_prices,
     b.no_sizes,
     public.dollars(b.yes_prices[cardinality(b.yes_prices)]) AS dollars,
     public.dollars(b.no_prices[1]) AS dollars,
     b.covered,
     b.exchange_ts
    FROM public.book_states(books_between.ticker, public.micros(books_between.from_at), public.micros(books_between.to_at), ((EXTRACT(epoch FROM books_between.every) * (1000000)::numeric))::bigint, false) b(exchange_ts, yes_prices, yes_sizes, no_prices, no_sizes, covered);
END;

ALTER FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval) IS 'A market''s whole book from from_at to to_at, both included: a row for from_at and one for each microsecond in which it changed, each valid until the next; or, with an interval, a row each so often from from_at on. Prices ascending in micro-dollars of the yes leg, sizes in hundredths of a contract, beside them the best bid and ask in dollars. Rows begin when the book is first known. Each snapshot on the way puts the book right, so a row may show what a hole had hidden; covered says whether there can have been one since the last snapshot. An error where the retention has dropped changes that from_at would need.';

CREATE FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) RETURNS TABLE(ticker text, minute timestamp with time zone, open numeric, high numeric, low numeric, close numeric, volume numeric, count bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.ticker, moment(c.minute_ts), dollars(c.prices[1]), dollars(c.high), dollars(c.low),
               dollars(c.prices[cardinality(c.prices)]), contracts(c.volume::bigint), c.count
        FROM (
            SELECT t.ticker,
                   t.exchange_ts - t.exchange_ts % 60000000 AS minute_ts,
                   array_agg(t.price ORDER BY t.exchange_ts, t.log_seq) AS prices,
                   max(t.price) AS high,
                   min(t.price) AS low,
                   sum(t.size) AS volume,
                   count(*) AS count
            FROM trades t
            WHERE (of_ticker IS NULL OR t.ticker = of_ticker)
              AND t.exchange_ts >= micros(from_at) - micros(from_at) % 60000000
              AND t.exchange_ts < micros(to_at)
            GROUP BY t.ticker, t.exchange_ts - t.exchange_ts % 60000000
        ) AS c
        ORDER BY c.ticker, c.minute_ts;
END
$$;

ALTER FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) IS 'One-minute candles of one market, or of all with a null ticker, from the minute that from_at is in up to to_at, which is not in it. As view candles (prices of the yes leg in dollars, volume in contracts), and reads no partition of another time.';

CREATE FUNCTION public.contracts(hundredths bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((hundredths)::numeric * 0.01);

ALTER FUNCTION public.contracts(hundredths bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.contracts(hundredths bigint) IS 'Contracts, with 2 decimals, of hundredths of a contract, the form of all sizes in tables. Exact.';

CREATE FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'public', 'pg_temp'
    AS $$
DECLARE
    day constant bigint := 86400000000;
    reach bigint := micros(from_at) - 1;
    stretch record;
BEGIN
    IF to_at < from_at THEN
        RAISE EXCEPTION 'to_at is before from_at' USING ERRCODE = 'invalid_parameter_value';
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

ALTER FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) IS 'Whether the gatherers together say that between two times no change of the market''s book is missing. False also where none has said it yet: the last hour, and what is not merged yet.';

CREATE FUNCTION public.covered(ticker text, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN public.covered(ticker, at, at);

ALTER FUNCTION public.covered(ticker text, at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.covered(ticker text, at timestamp with time zone) IS 'Whether a gatherer says that it saw the market''s book at this time. Whether the whole way from the last snapshot is covered, which a book needs, book_known_at says.';

SET default_table_access_method = heap;

CREATE TABLE public.consumers (
    name text NOT NULL,
    table_name text NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT consumers_position_check CHECK (("position" >= 0))
)
WITH (fillfactor='50');

ALTER TABLE public.consumers OWNER TO kalshi_owner;

COMMENT ON TABLE public.consumers IS 'Who reads production''s logs, and how far. The retention drops no partition with a row that a consumer registered here has not passed. A consumer moves its position by compare-and-set; one that is given up must be deleted here.';

COMMENT ON COLUMN public.consumers.name IS 'The consumer''s own name.';

COMMENT ON COLUMN public.consumers.table_name IS 'The log, by the name of its table.';

COMMENT ON COLUMN public.consumers."position" IS 'The last log_seq of the table that the consumer is done with.';

COMMENT ON COLUMN public.consumers.moved_at IS 'When it last moved its position, by production''s clock.';

CREATE TABLE public.logs (
    name text NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    head bigint DEFAULT 0 NOT NULL,
    time_max bigint DEFAULT 0 NOT NULL,
    kept_from bigint,
    CONSTRAINT logs_head_check CHECK ((head >= 0))
)
WITH (fillfactor='20');

ALTER TABLE public.logs OWNER TO kalshi_owner;

COMMENT ON TABLE public.logs IS 'One row a log: its identity and its last committed log_seq.';

COMMENT ON COLUMN public.logs.name IS 'The log, which is the name of its table.';

COMMENT ON COLUMN public.logs.log_id IS 'Made with the database: consumers of a rebuilt one begin at 0.';

COMMENT ON COLUMN public.logs.head IS 'The last committed log_seq, and so the number of rows ever written; 0 when empty.';

COMMENT ON COLUMN public.logs.time_max IS 'No committed row of the log has a later time: exchange_ts, or received_at of snapshots, or covered_from of coverage. Whoever appends raises it in the same transaction; a row above it is known to be new without a look into the table. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.logs.kept_from IS 'Rows with an earlier time were dropped by the retention; null when none were. No row below it is written any more: what was dropped can no longer be told from what is new. Microseconds since 1970 UTC.';

CREATE FUNCTION public.move_consumer(log text, "from" bigint, "to" bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    BEGIN ATOMIC
 WITH moved AS (
          INSERT INTO public.consumers AS c (name, table_name, "position")  SELECT SESSION_USER AS "session_user",
                     l.name,
                     move_consumer."to" AS "to"
                    FROM public.logs l
                   WHERE ((l.name = move_consumer.log) AND (move_consumer."from" <= move_consumer."to") AND (move_consumer."to" <= l.head) AND ((move_consumer."from" = 0) OR (EXISTS ( SELECT
                            FROM public.consumers k
                           WHERE ((k.name = SESSION_USER) AND (k.table_name = move_consumer.log)))))) ON CONFLICT(name, table_name) DO UPDATE SET "position" = excluded."position", moved_at = now()
           WHERE (c."position" = move_consumer."from")
           RETURNING true AS "?column?"
         )
  SELECT (EXISTS ( SELECT
            FROM moved)) AS "exists";
END;

ALTER FUNCTION public.move_consumer(log text, "from" bigint, "to" bigint) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.move_consumer(log text, "from" bigint, "to" bigint) IS 'Moves the caller''s own row of consumers, which has the name of its login, from one log_seq of a log to another; the first call, from 0, makes it. False, and nothing changed, when the row is not at "from" or the log does not reach "to".';

CREATE FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) RETURNS TABLE(at timestamp with time zone, bid_dollars numeric, bid_contracts numeric, ask_dollars numeric, ask_contracts numeric, covered boolean, exchange_ts bigint, bid bigint, bid_size bigint, ask bigint, ask_size bigint)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT public.moment(b.exchange_ts) AS moment,
     public.dollars(b.yes_prices[1]) AS dollars,
     public.contracts(b.yes_sizes[1]) AS contracts,
     public.dollars(b.no_prices[1]) AS dollars,
     public.contracts(b.no_sizes[1]) AS contracts,
     b.covered,
     b.exchange_ts,
     b.yes_prices[1] AS yes_prices,
     b.yes_sizes[1] AS yes_sizes,
     b.no_prices[1] AS no_prices,
     b.no_sizes[1] AS no_sizes
    FROM public.book_states(top_of_book.ticker, public.micros(top_of_book.from_at), public.micros(top_of_book.to_at), NULL::bigint, true) b(exchange_ts, yes_prices, yes_sizes, no_prices, no_sizes, covered);
END;

ALTER FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) IS 'The best bid and ask for yes from from_at to to_at, both included: a row for from_at and one for each change of a price or a size, each valid until the next. The bid is the highest level of the yes side; the ask is the lowest of the no side, whose prices are in yes-leg terms: a no bid at 0.56 stands there as 0.44, at which yes can be bought. Null where a side is empty. In dollars and contracts, then in micro-dollars and hundredths of a contract. covered: as in book_at.';

CREATE FUNCTION public.yes_no(is_yes boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN is_yes THEN 'yes'::text WHEN (NOT is_yes) THEN 'no'::text ELSE NULL::text END;

ALTER FUNCTION public.yes_no(is_yes boolean) OWNER TO kalshi_owner;

COMMENT ON FUNCTION public.yes_no(is_yes boolean) IS 'yes, no, or null, of a side as tables have it.';

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

ALTER TABLE public.trades OWNER TO kalshi_owner;

COMMENT ON TABLE public.trades IS 'Trades. Identity: trade_id; the time is in the key for the sake of partitions.';

COMMENT ON COLUMN public.trades.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.trades.trade_id IS 'The exchange''s identity of the trade.';

COMMENT ON COLUMN public.trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades.received_at IS 'The clock of the gatherer whose copy came first. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.trades.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.trades.price IS 'Price of the yes leg in micro-dollars.';

COMMENT ON COLUMN public.trades.no_price IS 'Price of the no leg in micro-dollars.';

COMMENT ON COLUMN public.trades.size IS 'Hundredths of a contract.';

COMMENT ON COLUMN public.trades.taker_side IS 'True: the taker is on yes.';

COMMENT ON COLUMN public.trades.is_block_trade IS 'True: agreed beside the book, which it does not touch.';

COMMENT ON COLUMN public.trades.gatherer_id IS 'Whose copy came first.';

CREATE VIEW public.candles AS
 SELECT c.ticker,
    public.moment(c.minute_ts) AS minute,
    public.dollars(c.prices[1]) AS open,
    public.dollars(c.high) AS high,
    public.dollars(c.low) AS low,
    public.dollars(c.prices[cardinality(c.prices)]) AS close,
    public.contracts((c.volume)::bigint) AS volume,
    c.count,
    c.minute_ts
   FROM ( SELECT t.ticker,
            (t.exchange_ts - (t.exchange_ts % (60000000)::bigint)) AS minute_ts,
            array_agg(t.price ORDER BY t.exchange_ts, t.log_seq) AS prices,
            max(t.price) AS high,
            min(t.price) AS low,
            sum(t.size) AS volume,
            count(*) AS count
           FROM public.trades t
          GROUP BY t.ticker, (t.exchange_ts - (t.exchange_ts % (60000000)::bigint))) c;

ALTER TABLE public.candles OWNER TO kalshi_owner;

COMMENT ON VIEW public.candles IS 'One-minute candles of the trades, block trades included; a minute without a trade has no row. A condition on ticker uses the index, one on minute or minute_ts is checked before anything is grouped. To leave partitions out as well, which matters for all markets of an hour, ask candles_between.';

COMMENT ON COLUMN public.candles.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.candles.minute IS 'The minute''s beginning, by the exchange''s clock.';

COMMENT ON COLUMN public.candles.open IS 'Price of the minute''s first trade, in dollars of the yes leg.';

COMMENT ON COLUMN public.candles.high IS 'Highest price, in dollars of the yes leg.';

COMMENT ON COLUMN public.candles.low IS 'Lowest price, in dollars of the yes leg.';

COMMENT ON COLUMN public.candles.close IS 'Price of the minute''s last trade, in dollars of the yes leg.';

COMMENT ON COLUMN public.candles.volume IS 'Contracts traded in the minute.';

COMMENT ON COLUMN public.candles.count IS 'Trades in the minute.';

COMMENT ON COLUMN public.candles.minute_ts IS 'The same in microseconds since 1970 UTC.';

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

ALTER TABLE public.contributions OWNER TO kalshi_owner;

COMMENT ON TABLE public.contributions IS 'What redundancy bought: which gatherer brought how many rows, and how many that no other had. Moves in the rows'' transaction. A row stands in alone from the moment one gatherer has brought it until another does, so the figures of an hour are exact when every gatherer''s cursor has passed it; offered - duplicates is what production has from that gatherer. Of orderbook_snapshots and coverage every row is the gatherer''s own.';

COMMENT ON COLUMN public.contributions.gatherer IS 'The gatherer, by name.';

COMMENT ON COLUMN public.contributions.table_name IS 'The log, by the name of its table.';

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

ALTER TABLE public.contributions_open OWNER TO kalshi_owner;

COMMENT ON TABLE public.contributions_open IS 'The rows that stand in contributions.alone and may still be brought by another, by hash; for the deduplicator alone.';

COMMENT ON COLUMN public.contributions_open.table_name IS 'The log, by the name of its table.';

COMMENT ON COLUMN public.contributions_open.part IS 'Order of the parts; 0 is the whole that the others change.';

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

ALTER TABLE public.coverage OWNER TO kalshi_owner;

COMMENT ON TABLE public.coverage IS 'Which gatherer saw which market without a hole, from when to when, and why that ended.';

COMMENT ON COLUMN public.coverage.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.coverage.channel IS 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...';

COMMENT ON COLUMN public.coverage.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage.covered_from IS 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.covered_to IS 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.coverage.first_exchange_ts IS 'The exchange''s clock at the first record of the market in the stretch, microseconds since 1970 UTC; null without one.';

COMMENT ON COLUMN public.coverage.last_exchange_ts IS 'The exchange''s clock at the last one, microseconds since 1970 UTC: between the two, nothing is missing.';

COMMENT ON COLUMN public.coverage.records IS 'Records of the market, or of the channel, in the stretch; null when a crash lost the count.';

COMMENT ON COLUMN public.coverage.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage, or continues: nothing ended, a long stretch is cut each hour.';

COMMENT ON COLUMN public.coverage.detail IS 'Why it ended, for people.';

COMMENT ON COLUMN public.coverage.session_id IS 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.';

COMMENT ON COLUMN public.coverage.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.coverage.gatherer_id IS 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.';

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

ALTER TABLE public.coverage_2026_07_30 OWNER TO kalshi_owner;

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

ALTER TABLE public.events OWNER TO kalshi_owner;

COMMENT ON TABLE public.events IS 'Events: what the markets of one question share. The version that is valid now; events_history has all of them.';

COMMENT ON COLUMN public.events.event_ticker IS 'The exchange''s name of the event.';

COMMENT ON COLUMN public.events.series_ticker IS 'The series that it belongs to; the series may be unknown.';

COMMENT ON COLUMN public.events.title IS 'For people.';

COMMENT ON COLUMN public.events.sub_title IS 'For people, shorter.';

COMMENT ON COLUMN public.events.category IS 'The exchange''s category.';

COMMENT ON COLUMN public.events.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';

COMMENT ON COLUMN public.events.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';

COMMENT ON COLUMN public.events.strike_ts IS 'The date that the question is about (strike_date). Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events.strike_period IS 'The period that the question is about, as sent.';

COMMENT ON COLUMN public.events.updated_ts IS 'When the exchange says that it changed the event. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.events.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.events.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.events.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

CREATE TABLE public.gatherers (
    gatherer_id smallint NOT NULL,
    name text NOT NULL
);

ALTER TABLE public.gatherers OWNER TO kalshi_owner;

COMMENT ON TABLE public.gatherers IS 'The gatherers that ever contributed, by the small number that rows carry.';

COMMENT ON COLUMN public.gatherers.gatherer_id IS 'The number, made here.';

COMMENT ON COLUMN public.gatherers.name IS 'gatherer_id of the gatherer''s configuration.';

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

ALTER TABLE public.markets OWNER TO kalshi_owner;

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

COMMENT ON COLUMN public.markets.settlement_ts IS 'When it was settled. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.expiration_value IS 'The observed value that decided it, as sent.';

COMMENT ON COLUMN public.markets.created_ts IS 'When the exchange created it. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.updated_ts IS 'When the exchange says that it changed something other than trading. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.open_ts IS 'Trading begins. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.close_ts IS 'Trading ends. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.expected_expiration_ts IS 'When the exchange expects to know the result. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets.latest_expiration_ts IS 'The last moment at which the result is known. Microseconds since 1970 UTC.';

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

COMMENT ON COLUMN public.markets.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

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

ALTER TABLE public.series OWNER TO kalshi_owner;

COMMENT ON TABLE public.series IS 'Series (KXGOLD15M): groups of events that recur. The version that is valid now; series_history has all of them.';

COMMENT ON COLUMN public.series.ticker IS 'The exchange''s name of the series.';

COMMENT ON COLUMN public.series.title IS 'For people.';

COMMENT ON COLUMN public.series.category IS 'The exchange''s category, such as Economics.';

COMMENT ON COLUMN public.series.frequency IS 'How often events recur, as the exchange says it.';

COMMENT ON COLUMN public.series.fee_type IS 'How trading fees are computed, as the exchange names it.';

COMMENT ON COLUMN public.series.fee_multiplier IS 'The number in that computation, as sent.';

COMMENT ON COLUMN public.series.updated_ts IS 'When the exchange says that it changed the series. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.series.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.series.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.series.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.series.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

CREATE VIEW public.coverage_readable AS
 SELECT c.log_seq,
    c.channel,
    c.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
    g.name AS gatherer,
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
   FROM ((((public.coverage c
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = c.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = c.ticker)))
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.coverage_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.coverage_readable IS 'Which gatherer saw what without a hole, with timestamps and titles. Bound ticker, channel and covered_from: they use the index and the partitions.';

COMMENT ON COLUMN public.coverage_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.coverage_readable.channel IS 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...';

COMMENT ON COLUMN public.coverage_readable.ticker IS 'The market; empty for a channel that covers all markets.';

COMMENT ON COLUMN public.coverage_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.coverage_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.coverage_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.coverage_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.coverage_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

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

ALTER TABLE public.events_past OWNER TO kalshi_owner;

COMMENT ON TABLE public.events_past IS 'Versions of events that are no longer valid.';

COMMENT ON COLUMN public.events_past.event_ticker IS 'The exchange''s name of the event.';

COMMENT ON COLUMN public.events_past.series_ticker IS 'The series that it belongs to; the series may be unknown.';

COMMENT ON COLUMN public.events_past.title IS 'For people.';

COMMENT ON COLUMN public.events_past.sub_title IS 'For people, shorter.';

COMMENT ON COLUMN public.events_past.category IS 'The exchange''s category.';

COMMENT ON COLUMN public.events_past.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';

COMMENT ON COLUMN public.events_past.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';

COMMENT ON COLUMN public.events_past.strike_ts IS 'The date that the question is about (strike_date). Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_past.strike_period IS 'The period that the question is about, as sent.';

COMMENT ON COLUMN public.events_past.updated_ts IS 'When the exchange says that it changed the event. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_past.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.events_past.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.events_past.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.events_past.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_past.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

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

ALTER TABLE public.events_history OWNER TO kalshi_owner;

COMMENT ON VIEW public.events_history IS 'Every version of every event: valid from valid_from up to valid_to, which is null in the one that is valid now.';

COMMENT ON COLUMN public.events_history.event_ticker IS 'The exchange''s name of the event.';

COMMENT ON COLUMN public.events_history.series_ticker IS 'The series that it belongs to; the series may be unknown.';

COMMENT ON COLUMN public.events_history.title IS 'For people.';

COMMENT ON COLUMN public.events_history.sub_title IS 'For people, shorter.';

COMMENT ON COLUMN public.events_history.category IS 'The exchange''s category.';

COMMENT ON COLUMN public.events_history.mutually_exclusive IS 'True: at most one of its markets resolves to yes.';

COMMENT ON COLUMN public.events_history.collateral_return_type IS 'How collateral is returned across its markets, as the exchange names it.';

COMMENT ON COLUMN public.events_history.strike_ts IS 'The date that the question is about (strike_date). Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_history.strike_period IS 'The period that the question is about, as sent.';

COMMENT ON COLUMN public.events_history.updated_ts IS 'When the exchange says that it changed the event. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_history.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.events_history.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.events_history.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.events_history.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.events_history.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

ALTER TABLE public.gatherers ALTER COLUMN gatherer_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.gatherers_gatherer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

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

ALTER TABLE public.market_lifecycle OWNER TO kalshi_owner;

COMMENT ON TABLE public.market_lifecycle IS 'Lifecycle messages of markets and events. Identity: subject, event_type, content_hash.';

COMMENT ON COLUMN public.market_lifecycle.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.market_lifecycle.subject IS 'Ticker of the market or of the event.';

COMMENT ON COLUMN public.market_lifecycle.event_type IS 'What happened, as the exchange names it (created, activated, determined, settled, ...).';

COMMENT ON COLUMN public.market_lifecycle.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_lifecycle.payload IS 'The whole message.';

COMMENT ON COLUMN public.market_lifecycle.content_hash IS 'Of the payload: a message that says something else is another.';

COMMENT ON COLUMN public.market_lifecycle.gatherer_id IS 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.';

CREATE VIEW public.market_lifecycle_readable AS
 SELECT l.log_seq,
    public.moment(l.exchange_ts) AS exchange_time,
    public.moment(l.received_at) AS received_time,
    l.subject,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
    l.event_type,
    l.payload,
    g.name AS gatherer,
    l.exchange_ts,
    l.received_at
   FROM ((((public.market_lifecycle l
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = l.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = l.subject)))
     LEFT JOIN public.events e ON ((e.event_ticker = COALESCE(m.event_ticker, l.subject))))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.market_lifecycle_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.market_lifecycle_readable IS 'Lifecycle messages of markets and events with timestamps and titles. Bound subject: it uses the index.';

COMMENT ON COLUMN public.market_lifecycle_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.market_lifecycle_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle_readable.received_time IS 'The clock of the gatherer whose copy came first, when the frame left the socket.';

COMMENT ON COLUMN public.market_lifecycle_readable.subject IS 'Ticker of the market or of the event.';

COMMENT ON COLUMN public.market_lifecycle_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.market_lifecycle_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.market_lifecycle_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.market_lifecycle_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.market_lifecycle_readable.event_type IS 'What happened, as the exchange names it (created, activated, determined, settled, ...).';

COMMENT ON COLUMN public.market_lifecycle_readable.payload IS 'The whole message.';

COMMENT ON COLUMN public.market_lifecycle_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

COMMENT ON COLUMN public.market_lifecycle_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.market_lifecycle_readable.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

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

ALTER TABLE public.market_sync OWNER TO kalshi_owner;

COMMENT ON TABLE public.market_sync IS 'How far series, events and markets are copied. Moves in the transaction of the rows.';

COMMENT ON COLUMN public.market_sync.table_name IS 'series, events or markets.';

COMMENT ON COLUMN public.market_sync.synced_until IS 'Everything that the exchange changed up to here is in the table; null before the first complete list. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_sync.synced_at IS 'When the last list, complete or of changes, ended. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_sync.full_from IS 'When the last complete list began. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_sync.full_ended IS 'When the last complete list ended. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_sync.rows_listed IS 'Keys in the last complete list.';

COMMENT ON COLUMN public.market_sync.to_confirm IS 'True: the last complete list differed from what was known in a way that a list which shifted while it was read would also cause; another one is read at once.';

COMMENT ON COLUMN public.market_sync.part IS 'Of a first complete list under way: which of its lists is being read, from 0.';

COMMENT ON COLUMN public.market_sync.cursor IS 'Of a first complete list under way: the exchange''s cursor of the next page. A restart goes on there.';

COMMENT ON COLUMN public.market_sync.cursor_from IS 'Of a first complete list under way: when it began. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.market_sync.cursor_rows IS 'Of a first complete list under way: rows of the pages so far.';

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

ALTER TABLE public.markets_past OWNER TO kalshi_owner;

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

COMMENT ON COLUMN public.markets_past.settlement_ts IS 'When it was settled. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.expiration_value IS 'The observed value that decided it, as sent.';

COMMENT ON COLUMN public.markets_past.created_ts IS 'When the exchange created it. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.updated_ts IS 'When the exchange says that it changed something other than trading. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.open_ts IS 'Trading begins. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.close_ts IS 'Trading ends. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.expected_expiration_ts IS 'When the exchange expects to know the result. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.latest_expiration_ts IS 'The last moment at which the result is known. Microseconds since 1970 UTC.';

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

COMMENT ON COLUMN public.markets_past.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_past.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

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

ALTER TABLE public.markets_history OWNER TO kalshi_owner;

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

COMMENT ON COLUMN public.markets_history.settlement_ts IS 'When it was settled. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.expiration_value IS 'The observed value that decided it, as sent.';

COMMENT ON COLUMN public.markets_history.created_ts IS 'When the exchange created it. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.updated_ts IS 'When the exchange says that it changed something other than trading. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.open_ts IS 'Trading begins. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.close_ts IS 'Trading ends. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.expected_expiration_ts IS 'When the exchange expects to know the result. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.latest_expiration_ts IS 'The last moment at which the result is known. Microseconds since 1970 UTC.';

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

COMMENT ON COLUMN public.markets_history.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.markets_history.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

CREATE VIEW public.markets_readable AS
 SELECT m.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    m.no_sub_title AS no_means,
    e.title AS event_title,
    s.title AS series_title,
    COALESCE(e.category, s.category) AS category,
    m.status,
    m.exchange_status,
    m.result,
    public.dollars(m.settlement_value) AS settlement_dollars,
    public.moment(m.open_ts) AS open_time,
    public.moment(m.close_ts) AS close_time,
    public.moment(m.settlement_ts) AS settlement_time,
    public.dollars(m.last_price) AS last_price_dollars,
    public.contracts(m.volume) AS volume_contracts,
    public.contracts(m.open_interest) AS open_interest_contracts,
    m.event_ticker,
    e.series_ticker,
    m.presence,
    public.moment(m.valid_from) AS valid_since
   FROM ((public.markets m
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.markets_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.markets_readable IS 'Markets as they stand now, in dollars, contracts and timestamps, with the titles of event and series.';

COMMENT ON COLUMN public.markets_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.markets_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.markets_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.markets_readable.no_means IS 'What no means in this market, as listed now.';

COMMENT ON COLUMN public.markets_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.markets_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.markets_readable.category IS 'The exchange''s category of the event, or of its series.';

COMMENT ON COLUMN public.markets_readable.status IS 'unopened, open, closed or settled; null when exchange_status is one that this version does not know.';

COMMENT ON COLUMN public.markets_readable.exchange_status IS 'As the exchange names it.';

COMMENT ON COLUMN public.markets_readable.result IS 'yes, no, scalar, or empty while there is none; as sent.';

COMMENT ON COLUMN public.markets_readable.settlement_dollars IS 'What a yes contract pays, in dollars; null until the exchange says it.';

COMMENT ON COLUMN public.markets_readable.open_time IS 'Trading begins.';

COMMENT ON COLUMN public.markets_readable.close_time IS 'Trading ends.';

COMMENT ON COLUMN public.markets_readable.settlement_time IS 'When it was settled; null before.';

COMMENT ON COLUMN public.markets_readable.last_price_dollars IS 'Price of the last trade in dollars when this version was read; trading alone makes no new version.';

COMMENT ON COLUMN public.markets_readable.volume_contracts IS 'Contracts traded when this version was read; final in a settled market.';

COMMENT ON COLUMN public.markets_readable.open_interest_contracts IS 'Contracts that were open when this version was read.';

COMMENT ON COLUMN public.markets_readable.event_ticker IS 'The event that it belongs to; the event may be unknown.';

COMMENT ON COLUMN public.markets_readable.series_ticker IS 'The series of that event.';

COMMENT ON COLUMN public.markets_readable.presence IS 'listed, archived or missing, as in markets.';

COMMENT ON COLUMN public.markets_readable.valid_since IS 'When this version was received.';

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

ALTER TABLE public.orderbook_deltas OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_deltas IS 'Signed changes of levels, each once: the multiset union of what the gatherers saw.';

COMMENT ON COLUMN public.orderbook_deltas.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_deltas.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.orderbook_deltas.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_deltas.side IS 'True: the yes side.';

COMMENT ON COLUMN public.orderbook_deltas.price IS 'Micro-dollars, in yes-leg terms on both sides.';

COMMENT ON COLUMN public.orderbook_deltas.size_delta IS 'Signed, in hundredths of a contract.';

COMMENT ON COLUMN public.orderbook_deltas.occurrence IS 'Ordinal, from 1, among identical changes: truly identical changes do occur.';

COMMENT ON COLUMN public.orderbook_deltas.gatherer_id IS 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.';

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

ALTER TABLE public.orderbook_deltas_2026_08_05 OWNER TO kalshi_owner;

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

ALTER TABLE public.orderbook_deltas_2026_08_06 OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_deltas_2026_08_06 IS 'Rows of orderbook_deltas of a week or a day.';

CREATE VIEW public.orderbook_deltas_readable AS
 SELECT d.log_seq,
    public.moment(d.exchange_ts) AS exchange_time,
    public.moment(d.received_at) AS received_time,
    d.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
    public.yes_no(d.side) AS side,
    public.dollars(d.price) AS price_dollars,
    public.contracts(d.size_delta) AS contracts_delta,
    d.occurrence,
    g.name AS gatherer,
    d.exchange_ts,
    d.received_at
   FROM ((((public.orderbook_deltas d
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = d.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = d.ticker)))
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.orderbook_deltas_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.orderbook_deltas_readable IS 'Changes of levels in dollars, contracts and timestamps, with titles. Bound ticker and exchange_ts: they use the index and the partitions.';

COMMENT ON COLUMN public.orderbook_deltas_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_deltas_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas_readable.received_time IS 'The clock of the gatherer whose copy came first, when the frame left the socket.';

COMMENT ON COLUMN public.orderbook_deltas_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_deltas_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.orderbook_deltas_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.orderbook_deltas_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.orderbook_deltas_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.orderbook_deltas_readable.side IS 'yes or no.';

COMMENT ON COLUMN public.orderbook_deltas_readable.price_dollars IS 'Price of the level in dollars, in yes-leg terms on both sides.';

COMMENT ON COLUMN public.orderbook_deltas_readable.contracts_delta IS 'Signed change of the level''s size, in contracts.';

COMMENT ON COLUMN public.orderbook_deltas_readable.occurrence IS 'Ordinal, from 1, among identical changes: truly identical changes do occur.';

COMMENT ON COLUMN public.orderbook_deltas_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

COMMENT ON COLUMN public.orderbook_deltas_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.orderbook_deltas_readable.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

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

ALTER TABLE public.orderbook_snapshots_2026_07_30 OWNER TO kalshi_owner;

COMMENT ON TABLE public.orderbook_snapshots_2026_07_30 IS 'Rows of orderbook_snapshots of a week or a day.';

CREATE VIEW public.orderbook_snapshots_readable AS
 SELECT b.log_seq,
    public.moment(b.anchor_ts) AS anchor_time,
    public.moment(b.received_at) AS received_time,
    b.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
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
    g.name AS gatherer,
    public.moment(b.session_id) AS session_opened,
    b.sid,
    b.seq,
    b.anchor_ts,
    b.received_at
   FROM ((((public.orderbook_snapshots b
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = b.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = b.ticker)))
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.orderbook_snapshots_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.orderbook_snapshots_readable IS 'Full books in dollars, contracts and timestamps, with titles and the best prices. Bound ticker and received_at: they use the index and the partitions. book_at gives the book of any time.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.anchor_time IS 'The book after all changes up to this time of the exchange equals this one; null when it has no such place.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.received_time IS 'The clock of the gatherer whose copy came first, when the frame left the socket.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.source IS 'ws: from the stream. rest: polled beside it, without an anchor.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.bid_dollars IS 'Best bid for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.ask_dollars IS 'Best ask for yes in dollars; null when there is none.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.yes_dollars IS 'Bids for yes: prices in dollars, ascending.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.yes_contracts IS 'Contracts at each of yes_dollars.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.no_dollars IS 'Bids for no, which ask for yes: prices in dollars in yes-leg terms, ascending.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.no_contracts IS 'Contracts at each of no_dollars.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.session_opened IS 'When the gatherer''s connection was opened, by its clock; names the connection.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.sid IS 'The exchange''s number of the subscription within the connection; 0 for what REST showed.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.seq IS 'The exchange''s number of the frame within the subscription.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.anchor_ts IS 'The book after all deltas with exchange_ts <= anchor_ts equals this one; microseconds since 1970 UTC, by the exchange''s clock; null when it has no such place.';

COMMENT ON COLUMN public.orderbook_snapshots_readable.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

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

ALTER TABLE public.series_past OWNER TO kalshi_owner;

COMMENT ON TABLE public.series_past IS 'Versions of series that are no longer valid.';

COMMENT ON COLUMN public.series_past.ticker IS 'The exchange''s name of the series.';

COMMENT ON COLUMN public.series_past.title IS 'For people.';

COMMENT ON COLUMN public.series_past.category IS 'The exchange''s category, such as Economics.';

COMMENT ON COLUMN public.series_past.frequency IS 'How often events recur, as the exchange says it.';

COMMENT ON COLUMN public.series_past.fee_type IS 'How trading fees are computed, as the exchange names it.';

COMMENT ON COLUMN public.series_past.fee_multiplier IS 'The number in that computation, as sent.';

COMMENT ON COLUMN public.series_past.updated_ts IS 'When the exchange says that it changed the series. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.series_past.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.series_past.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.series_past.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.series_past.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.series_past.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

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

ALTER TABLE public.series_history OWNER TO kalshi_owner;

COMMENT ON VIEW public.series_history IS 'Every version of every series: valid from valid_from up to valid_to, which is null in the one that is valid now.';

COMMENT ON COLUMN public.series_history.ticker IS 'The exchange''s name of the series.';

COMMENT ON COLUMN public.series_history.title IS 'For people.';

COMMENT ON COLUMN public.series_history.category IS 'The exchange''s category, such as Economics.';

COMMENT ON COLUMN public.series_history.frequency IS 'How often events recur, as the exchange says it.';

COMMENT ON COLUMN public.series_history.fee_type IS 'How trading fees are computed, as the exchange names it.';

COMMENT ON COLUMN public.series_history.fee_multiplier IS 'The number in that computation, as sent.';

COMMENT ON COLUMN public.series_history.updated_ts IS 'When the exchange says that it changed the series. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.series_history.raw IS 'The whole object as REST listed it, with every field that has no column.';

COMMENT ON COLUMN public.series_history.content_hash IS 'Of raw without the figures that trading changes: another hash is another version.';

COMMENT ON COLUMN public.series_history.presence IS 'listed; archived (the exchange moved it behind its historical cut-off); missing (it is in no list any more, for another reason). Rows are never removed.';

COMMENT ON COLUMN public.series_history.valid_from IS 'When this version was received. Microseconds since 1970 UTC.';

COMMENT ON COLUMN public.series_history.valid_to IS 'When the next version was received. Microseconds since 1970 UTC.';

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

ALTER TABLE public.sync_cursors OWNER TO kalshi_owner;

COMMENT ON TABLE public.sync_cursors IS 'How far each log of each gatherer is merged. A rebuilt gatherer has a new log_id and so a new cursor, from 0.';

COMMENT ON COLUMN public.sync_cursors.gatherer IS 'The gatherer, by name.';

COMMENT ON COLUMN public.sync_cursors.table_name IS 'The log, by the name of its table.';

COMMENT ON COLUMN public.sync_cursors.log_id IS 'The log''s identity in the gatherer''s database.';

COMMENT ON COLUMN public.sync_cursors."position" IS 'The last log_seq of that log whose row is in production.';

COMMENT ON COLUMN public.sync_cursors.head IS 'The log''s head when the cursor last moved.';

COMMENT ON COLUMN public.sync_cursors.lag_rows IS 'Rows that were not merged yet when the cursor last moved.';

COMMENT ON COLUMN public.sync_cursors.lag_seconds IS 'Age of the newest row merged, by the gatherer''s clock, when the cursor last moved.';

COMMENT ON COLUMN public.sync_cursors.past_retention IS 'Rows of that log that came after their time had been dropped (logs.kept_from) and were not written.';

COMMENT ON COLUMN public.sync_cursors.synced_at IS 'When the cursor last moved, by production''s clock.';

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

ALTER TABLE public.tickers OWNER TO kalshi_owner;

COMMENT ON TABLE public.tickers IS 'Messages of the ticker channel. Identity: ticker, exchange_ts, content_hash.';

COMMENT ON COLUMN public.tickers.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.tickers.exchange_ts IS 'The exchange''s clock when it made the message, microseconds since 1970 UTC.';

COMMENT ON COLUMN public.tickers.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

COMMENT ON COLUMN public.tickers.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.tickers.last_price IS 'Price of the last trade in micro-dollars of the yes leg; null before the first.';

COMMENT ON COLUMN public.tickers.yes_bid IS 'Best bid for yes in micro-dollars; null when there is none.';

COMMENT ON COLUMN public.tickers.yes_ask IS 'Best ask for yes in micro-dollars; null when there is none.';

COMMENT ON COLUMN public.tickers.yes_bid_size IS 'Hundredths of a contract at the best bid.';

COMMENT ON COLUMN public.tickers.yes_ask_size IS 'Hundredths of a contract at the best ask.';

COMMENT ON COLUMN public.tickers.last_trade_size IS 'Hundredths of a contract in the last trade.';

COMMENT ON COLUMN public.tickers.volume IS 'Hundredths of contracts traded so far.';

COMMENT ON COLUMN public.tickers.open_interest IS 'Hundredths of contracts that are open.';

COMMENT ON COLUMN public.tickers.dollar_volume IS 'Whole dollars traded so far, as the exchange sends it.';

COMMENT ON COLUMN public.tickers.dollar_open_interest IS 'Whole dollars in open contracts, as the exchange sends it.';

COMMENT ON COLUMN public.tickers.content_hash IS 'Of the message''s figures: tells two messages of one millisecond apart.';

COMMENT ON COLUMN public.tickers.gatherer_id IS 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.';

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

ALTER TABLE public.tickers_2026_08_05 OWNER TO kalshi_owner;

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

ALTER TABLE public.tickers_2026_08_06 OWNER TO kalshi_owner;

COMMENT ON TABLE public.tickers_2026_08_06 IS 'Rows of tickers of a week or a day.';

CREATE VIEW public.tickers_readable AS
 SELECT t.log_seq,
    public.moment(t.exchange_ts) AS exchange_time,
    public.moment(t.received_at) AS received_time,
    t.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
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
    g.name AS gatherer,
    t.exchange_ts,
    t.received_at
   FROM ((((public.tickers t
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = t.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = t.ticker)))
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.tickers_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.tickers_readable IS 'Quotes and totals as the ticker channel says them, in dollars, contracts and timestamps, with titles. Bound ticker and exchange_ts: they use the index and the partitions.';

COMMENT ON COLUMN public.tickers_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.tickers_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.tickers_readable.received_time IS 'The clock of the gatherer whose copy came first, when the frame left the socket.';

COMMENT ON COLUMN public.tickers_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.tickers_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.tickers_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.tickers_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.tickers_readable.series_title IS 'Title of the event''s series, as listed now.';

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

COMMENT ON COLUMN public.tickers_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

COMMENT ON COLUMN public.tickers_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.tickers_readable.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

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

ALTER TABLE public.trades_2026_07_30 OWNER TO kalshi_owner;

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

ALTER TABLE public.trades_2026_08_06 OWNER TO kalshi_owner;

COMMENT ON TABLE public.trades_2026_08_06 IS 'Rows of trades of a week or a day.';

CREATE VIEW public.trades_readable AS
 SELECT t.log_seq,
    public.moment(t.exchange_ts) AS exchange_time,
    public.moment(t.received_at) AS received_time,
    t.ticker,
    m.title AS market_title,
    m.yes_sub_title AS yes_means,
    e.title AS event_title,
    s.title AS series_title,
    public.dollars(t.price) AS price_dollars,
    public.dollars(t.no_price) AS no_price_dollars,
    public.contracts(t.size) AS contracts,
    public.yes_no(t.taker_side) AS taker,
    t.is_block_trade,
    t.trade_id,
    g.name AS gatherer,
    t.exchange_ts,
    t.received_at
   FROM ((((public.trades t
     LEFT JOIN public.gatherers g ON ((g.gatherer_id = t.gatherer_id)))
     LEFT JOIN public.markets m ON ((m.ticker = t.ticker)))
     LEFT JOIN public.events e ON ((e.event_ticker = m.event_ticker)))
     LEFT JOIN public.series s ON ((s.ticker = e.series_ticker)));

ALTER TABLE public.trades_readable OWNER TO kalshi_owner;

COMMENT ON VIEW public.trades_readable IS 'Trades in dollars, contracts and timestamps, with titles. Bound exchange_ts or ticker: only they use partitions and indexes.';

COMMENT ON COLUMN public.trades_readable.log_seq IS 'The row''s place in the log: dense, from 1, in order of commit.';

COMMENT ON COLUMN public.trades_readable.exchange_time IS 'The exchange''s clock; null where the message has no time.';

COMMENT ON COLUMN public.trades_readable.received_time IS 'The clock of the gatherer whose copy came first, when the frame left the socket.';

COMMENT ON COLUMN public.trades_readable.ticker IS 'The exchange''s name of the market.';

COMMENT ON COLUMN public.trades_readable.market_title IS 'Title of the market, as listed now; null when it is not known.';

COMMENT ON COLUMN public.trades_readable.yes_means IS 'What yes means in this market, as listed now.';

COMMENT ON COLUMN public.trades_readable.event_title IS 'Title of the market''s event, as listed now.';

COMMENT ON COLUMN public.trades_readable.series_title IS 'Title of the event''s series, as listed now.';

COMMENT ON COLUMN public.trades_readable.price_dollars IS 'Price of the yes leg in dollars.';

COMMENT ON COLUMN public.trades_readable.no_price_dollars IS 'Price of the no leg in dollars; the two make up what the contract pays.';

COMMENT ON COLUMN public.trades_readable.contracts IS 'Size in contracts.';

COMMENT ON COLUMN public.trades_readable.taker IS 'The outcome that the taker is on: yes or no; null when the exchange named another.';

COMMENT ON COLUMN public.trades_readable.is_block_trade IS 'True: agreed beside the book, which it does not touch.';

COMMENT ON COLUMN public.trades_readable.trade_id IS 'The exchange''s identity of the trade.';

COMMENT ON COLUMN public.trades_readable.gatherer IS 'The gatherer, by name: whose copy came first, or whose row it is.';

COMMENT ON COLUMN public.trades_readable.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.';

COMMENT ON COLUMN public.trades_readable.received_at IS 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.';

CREATE TABLE public.writer (
    singleton boolean DEFAULT true NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    holder text DEFAULT ''::text NOT NULL,
    acquired_at timestamp with time zone,
    CONSTRAINT writer_singleton_check CHECK (singleton)
);

ALTER TABLE public.writer OWNER TO kalshi_owner;

COMMENT ON TABLE public.writer IS 'Which deduplicator may append. The holder keeps a session advisory lock; every batch checks the epoch, so a process that was replaced cannot commit any more.';

COMMENT ON COLUMN public.writer.singleton IS 'Always true: the table has one row.';

COMMENT ON COLUMN public.writer.epoch IS 'Grows by one each time the lock is taken.';

COMMENT ON COLUMN public.writer.holder IS 'Process, host and start of the last holder, for people.';

COMMENT ON COLUMN public.writer.acquired_at IS 'When the last holder took the lock, by the database''s clock.';

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
	(2, 'markets', '2026-11-22T11:21:49.026512197Z', '8639573107812450909'),
	(3, 'roles', '2026-11-22T15:31:30.338917215Z', '2722930647920693651'),
	(4, 'readable', '2026-11-22T15:31:31.284876523Z', '5510856664488826702'),
	(5, 'books', '2026-11-22T15:31:31.888858364Z', '6980391307498215257');

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

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO kalshi_owner;
GRANT USAGE ON SCHEMA public TO exporter;
GRANT USAGE ON SCHEMA public TO deduplicator;

GRANT SELECT,INSERT ON TABLE public.orderbook_snapshots TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_snapshots TO exporter;

REVOKE ALL ON FUNCTION public.book_anchor(ticker text, at_ts bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_anchor(ticker text, at_ts bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.book_anchor(ticker text, at_ts bigint) TO exporter;

REVOKE ALL ON FUNCTION public.book_at(ticker text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_at(ticker text, at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.book_at(ticker text, at timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.book_covered_until(anchor public.orderbook_snapshots, to_ts bigint) TO exporter;

REVOKE ALL ON FUNCTION public.book_known_at(ticker text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_known_at(ticker text, at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.book_known_at(ticker text, at timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) TO deduplicator;
GRANT ALL ON FUNCTION public.book_states(ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean) TO exporter;

REVOKE ALL ON FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.book_stretches(ticker text, clock_from bigint, clock_to bigint) TO exporter;

REVOKE ALL ON FUNCTION public.dollars(micro_dollars bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.dollars(micro_dollars bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.dollars(micro_dollars bigint) TO exporter;

REVOKE ALL ON FUNCTION public.micros(moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.micros(moment timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.micros(moment timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.moment(micros bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.moment(micros bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.moment(micros bigint) TO exporter;

REVOKE ALL ON FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval) FROM PUBLIC;
GRANT ALL ON FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval) TO deduplicator;
GRANT ALL ON FUNCTION public.books_between(ticker text, from_at timestamp with time zone, to_at timestamp with time zone, every interval) TO exporter;

REVOKE ALL ON FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.candles_between(of_ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.contracts(hundredths bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.contracts(hundredths bigint) TO deduplicator;
GRANT ALL ON FUNCTION public.contracts(hundredths bigint) TO exporter;

REVOKE ALL ON FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.covered(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.covered(ticker text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.covered(ticker text, at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.covered(ticker text, at timestamp with time zone) TO exporter;

GRANT SELECT ON TABLE public.consumers TO deduplicator;
GRANT SELECT ON TABLE public.consumers TO exporter;

GRANT SELECT ON TABLE public.logs TO deduplicator;
GRANT SELECT ON TABLE public.logs TO exporter;

GRANT UPDATE(head) ON TABLE public.logs TO deduplicator;

GRANT UPDATE(time_max) ON TABLE public.logs TO deduplicator;

REVOKE ALL ON FUNCTION public.move_consumer(log text, "from" bigint, "to" bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.move_consumer(log text, "from" bigint, "to" bigint) TO exporter;

REVOKE ALL ON FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO deduplicator;
GRANT ALL ON FUNCTION public.top_of_book(ticker text, from_at timestamp with time zone, to_at timestamp with time zone) TO exporter;

REVOKE ALL ON FUNCTION public.yes_no(is_yes boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.yes_no(is_yes boolean) TO deduplicator;
GRANT ALL ON FUNCTION public.yes_no(is_yes boolean) TO exporter;

GRANT SELECT,INSERT ON TABLE public.trades TO deduplicator;
GRANT SELECT ON TABLE public.trades TO exporter;

GRANT SELECT,INSERT ON TABLE public.candles TO deduplicator;
GRANT SELECT ON TABLE public.candles TO exporter;

GRANT SELECT,INSERT,UPDATE ON TABLE public.contributions TO deduplicator;
GRANT SELECT ON TABLE public.contributions TO exporter;

GRANT SELECT,INSERT,DELETE ON TABLE public.contributions_open TO deduplicator;
GRANT SELECT ON TABLE public.contributions_open TO exporter;

GRANT SELECT,INSERT ON TABLE public.coverage TO deduplicator;
GRANT SELECT ON TABLE public.coverage TO exporter;

GRANT SELECT ON TABLE public.coverage_2026_07_30 TO deduplicator;
GRANT SELECT ON TABLE public.coverage_2026_07_30 TO exporter;

GRANT SELECT,INSERT,UPDATE ON TABLE public.events TO deduplicator;
GRANT SELECT ON TABLE public.events TO exporter;

GRANT SELECT,INSERT ON TABLE public.gatherers TO deduplicator;
GRANT SELECT ON TABLE public.gatherers TO exporter;

GRANT SELECT,INSERT,UPDATE ON TABLE public.markets TO deduplicator;
GRANT SELECT ON TABLE public.markets TO exporter;

GRANT SELECT,INSERT,UPDATE ON TABLE public.series TO deduplicator;
GRANT SELECT ON TABLE public.series TO exporter;

GRANT SELECT,INSERT ON TABLE public.coverage_readable TO deduplicator;
GRANT SELECT ON TABLE public.coverage_readable TO exporter;

GRANT SELECT,INSERT ON TABLE public.events_past TO deduplicator;
GRANT SELECT ON TABLE public.events_past TO exporter;

GRANT SELECT ON TABLE public.events_history TO deduplicator;
GRANT SELECT ON TABLE public.events_history TO exporter;

GRANT SELECT,INSERT ON TABLE public.market_lifecycle TO deduplicator;
GRANT SELECT ON TABLE public.market_lifecycle TO exporter;

GRANT SELECT,INSERT ON TABLE public.market_lifecycle_readable TO deduplicator;
GRANT SELECT ON TABLE public.market_lifecycle_readable TO exporter;

GRANT SELECT,UPDATE ON TABLE public.market_sync TO deduplicator;
GRANT SELECT ON TABLE public.market_sync TO exporter;

GRANT SELECT,INSERT ON TABLE public.markets_past TO deduplicator;
GRANT SELECT ON TABLE public.markets_past TO exporter;

GRANT SELECT ON TABLE public.markets_history TO deduplicator;
GRANT SELECT ON TABLE public.markets_history TO exporter;

GRANT SELECT,INSERT ON TABLE public.markets_readable TO deduplicator;
GRANT SELECT ON TABLE public.markets_readable TO exporter;

GRANT SELECT,INSERT ON TABLE public.orderbook_deltas TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_deltas TO exporter;

GRANT SELECT ON TABLE public.orderbook_deltas_2026_08_05 TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_deltas_2026_08_05 TO exporter;

GRANT SELECT ON TABLE public.orderbook_deltas_2026_08_06 TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_deltas_2026_08_06 TO exporter;

GRANT SELECT,INSERT ON TABLE public.orderbook_deltas_readable TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_deltas_readable TO exporter;

GRANT SELECT ON TABLE public.orderbook_snapshots_2026_07_30 TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_snapshots_2026_07_30 TO exporter;

GRANT SELECT,INSERT ON TABLE public.orderbook_snapshots_readable TO deduplicator;
GRANT SELECT ON TABLE public.orderbook_snapshots_readable TO exporter;

GRANT SELECT ON TABLE public.refinery_schema_history TO deduplicator;
GRANT SELECT ON TABLE public.refinery_schema_history TO exporter;

GRANT SELECT,INSERT ON TABLE public.series_past TO deduplicator;
GRANT SELECT ON TABLE public.series_past TO exporter;

GRANT SELECT ON TABLE public.series_history TO deduplicator;
GRANT SELECT ON TABLE public.series_history TO exporter;

GRANT SELECT,INSERT,UPDATE ON TABLE public.sync_cursors TO deduplicator;
GRANT SELECT ON TABLE public.sync_cursors TO exporter;

GRANT SELECT,INSERT ON TABLE public.tickers TO deduplicator;
GRANT SELECT ON TABLE public.tickers TO exporter;

GRANT SELECT ON TABLE public.tickers_2026_08_05 TO deduplicator;
GRANT SELECT ON TABLE public.tickers_2026_08_05 TO exporter;

GRANT SELECT ON TABLE public.tickers_2026_08_06 TO deduplicator;
GRANT SELECT ON TABLE public.tickers_2026_08_06 TO exporter;

GRANT SELECT,INSERT ON TABLE public.tickers_readable TO deduplicator;
GRANT SELECT ON TABLE public.tickers_readable TO exporter;

GRANT SELECT ON TABLE public.trades_2026_07_30 TO deduplicator;
GRANT SELECT ON TABLE public.trades_2026_07_30 TO exporter;

GRANT SELECT ON TABLE public.trades_2026_08_06 TO deduplicator;
GRANT SELECT ON TABLE public.trades_2026_08_06 TO exporter;

GRANT SELECT,INSERT ON TABLE public.trades_readable TO deduplicator;
GRANT SELECT ON TABLE public.trades_readable TO exporter;

GRANT SELECT ON TABLE public.writer TO deduplicator;
GRANT SELECT ON TABLE public.writer TO exporter;

GRANT UPDATE(epoch) ON TABLE public.writer TO deduplicator;

GRANT UPDATE(holder) ON TABLE public.writer TO deduplicator;

GRANT UPDATE(acquired_at) ON TABLE public.writer TO deduplicator;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT USAGE ON SEQUENCES  TO deduplicator;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT ALL ON FUNCTIONS  TO deduplicator;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT ALL ON FUNCTIONS  TO exporter;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT SELECT,INSERT ON TABLES  TO deduplicator;
ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner IN SCHEMA public GRANT SELECT ON TABLES  TO exporter;

ALTER DEFAULT PRIVILEGES FOR ROLE kalshi_owner REVOKE ALL ON FUNCTIONS  FROM PUBLIC;

