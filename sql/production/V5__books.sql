-- Books. Production has no book, only snapshots with their places in the exchange's time and the
-- changes between them. The book at a time is the newest snapshot that is anchored at or before it,
-- plus the changes after the anchor up to that time. A level whose sizes add up to 0 does not exist.
--
-- That is the exchange's book if nothing is missing in between, which is what coverage says.
-- `covered` is true only where it says so: that all stretches together, of whichever gatherers,
-- reach from the anchor to the time without a hole. A stretch is written when it ends, at the
-- latest an hour after it began, so the last hour is not covered yet. The bounds of a stretch are
-- a gatherer's clock, and clocks differ: unless a record's exchange time proves more, a second is
-- taken off each end, so that two gatherers that take over from one another have to overlap by two.
-- Stretches that ended because the book was found to be wrong prove nothing and are left out.

CREATE FUNCTION book_anchor(ticker text, at_ts bigint)
    RETURNS SETOF orderbook_snapshots
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_custom_plan
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
COMMENT ON FUNCTION book_anchor(text, bigint) IS 'The newest snapshot of a market that is anchored at or before a time in microseconds; no row when there is none.';

CREATE FUNCTION book_stretches(ticker text, clock_from bigint, clock_to bigint)
    RETURNS TABLE (
        gatherer_id smallint, session_id bigint, sid bigint, covered_from bigint, covered_to bigint,
        from_ts bigint, to_ts bigint
    )
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 50
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_custom_plan
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
COMMENT ON FUNCTION book_stretches(text, bigint, bigint) IS 'What coverage says of a market''s book between two times of the gatherers'' clocks, in microseconds: each stretch, and from_ts to to_ts, the times of the exchange in which it missed nothing.';

CREATE FUNCTION book_covered_until(anchor orderbook_snapshots, to_ts bigint)
    RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = public, pg_temp
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
COMMENT ON FUNCTION book_covered_until(orderbook_snapshots, bigint) IS 'Up to which time of the exchange, to_ts at most, no change since a snapshot''s anchor is missing as far as coverage says; microseconds. The anchor itself when it says nothing.';

CREATE FUNCTION covered(ticker text, from_at timestamptz, to_at timestamptz)
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
COMMENT ON FUNCTION covered(text, timestamptz, timestamptz) IS 'Whether the gatherers together say that between two times no change of the market''s book is missing. False also where none has said it yet: the last hour, and what is not merged yet.';

CREATE FUNCTION covered(ticker text, at timestamptz)
    RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN covered(ticker, at, at);
COMMENT ON FUNCTION covered(text, timestamptz) IS 'Whether a gatherer says that it saw the market''s book at this time. Whether the whole way from the last snapshot is covered, which a book needs, book_known_at says.';

CREATE FUNCTION book_known_at(ticker text, at timestamptz)
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
COMMENT ON FUNCTION book_known_at(text, timestamptz) IS 'What can be said of a market''s book at a time; always one row. known: book_at gives it, and no level means an empty book. covered: all changes since the anchor are there, as far as the gatherers know. reason: why one of the two is false. anchor_time, anchor_ts (microseconds), anchor_log_seq: the snapshot it is folded from. covered_until: how far coverage reaches from there, at most to the time asked for.';

CREATE FUNCTION book_at(ticker text, at timestamptz)
    RETURNS TABLE (
        side boolean, price bigint, size bigint, side_name text, price_dollars numeric,
        contracts numeric, covered boolean, anchor_time timestamptz
    )
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_custom_plan
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
COMMENT ON FUNCTION book_at(text, timestamptz) IS 'The levels of a market''s book at a time of the exchange, after all changes up to and with that microsecond, the best of each side first. side: true is yes. price: micro-dollars in yes-leg terms on both sides, so that yes levels bid for yes and no levels ask for it. size: hundredths of a contract. Then the same as yes or no, dollars, contracts. covered: whether coverage says that nothing is missing since the snapshot at anchor_time; without it the book may be wrong. No rows: the book is empty, or no snapshot is anchored before; book_known_at tells which. An error where the retention has dropped changes that it would need.';

CREATE FUNCTION book_states(
    ticker text, from_ts bigint, to_ts bigint, every_micros bigint, tops_only boolean
)
    RETURNS TABLE (
        exchange_ts bigint, yes_prices bigint[], yes_sizes bigint[], no_prices bigint[],
        no_sizes bigint[], covered boolean
    )
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_custom_plan
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
COMMENT ON FUNCTION book_states(text, bigint, bigint, bigint, boolean) IS 'What books_between and top_of_book are made of; times in microseconds, prices in micro-dollars, sizes in hundredths of a contract. With tops_only each array holds the best level alone, and rows come when that changes.';

CREATE FUNCTION books_between(
    ticker text, from_at timestamptz, to_at timestamptz, every interval DEFAULT NULL
)
    RETURNS TABLE (
        at timestamptz, yes_prices bigint[], yes_sizes bigint[], no_prices bigint[],
        no_sizes bigint[], bid_dollars numeric, ask_dollars numeric, covered boolean,
        exchange_ts bigint
    )
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT moment(b.exchange_ts), b.yes_prices, b.yes_sizes, b.no_prices, b.no_sizes,
               dollars(b.yes_prices[cardinality(b.yes_prices)]), dollars(b.no_prices[1]),
               b.covered, b.exchange_ts
        FROM book_states(
            ticker, micros(from_at), micros(to_at),
            (extract(epoch FROM every) * 1000000)::bigint, false
        ) AS b;
    END;
COMMENT ON FUNCTION books_between(text, timestamptz, timestamptz, interval) IS 'A market''s whole book from from_at to to_at, both included: a row for from_at and one for each microsecond in which it changed, each valid until the next; or, with an interval, a row each so often from from_at on. Prices ascending in micro-dollars of the yes leg, sizes in hundredths of a contract, beside them the best bid and ask in dollars. Rows begin when the book is first known. Each snapshot on the way puts the book right, so a row may show what a hole had hidden; covered says whether there can have been one since the last snapshot. An error where the retention has dropped changes that from_at would need.';

CREATE FUNCTION top_of_book(ticker text, from_at timestamptz, to_at timestamptz)
    RETURNS TABLE (
        at timestamptz, bid_dollars numeric, bid_contracts numeric, ask_dollars numeric,
        ask_contracts numeric, covered boolean, exchange_ts bigint, bid bigint, bid_size bigint,
        ask bigint, ask_size bigint
    )
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT moment(b.exchange_ts), dollars(b.yes_prices[1]), contracts(b.yes_sizes[1]),
               dollars(b.no_prices[1]), contracts(b.no_sizes[1]), b.covered, b.exchange_ts,
               b.yes_prices[1], b.yes_sizes[1], b.no_prices[1], b.no_sizes[1]
        FROM book_states(ticker, micros(from_at), micros(to_at), NULL, true) AS b;
    END;
COMMENT ON FUNCTION top_of_book(text, timestamptz, timestamptz) IS 'The best bid and ask for yes from from_at to to_at, both included: a row for from_at and one for each change of a price or a size, each valid until the next. The bid is the highest level of the yes side; the ask is the lowest of the no side, whose prices are in yes-leg terms: a no bid at 0.56 stands there as 0.44, at which yes can be bought. Null where a side is empty. In dollars and contracts, then in micro-dollars and hundredths of a contract. covered: as in book_at.';
