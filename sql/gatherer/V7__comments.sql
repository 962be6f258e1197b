-- Comments that said less, or more, than is so: what proves coverage, what `continues` means, and that a
-- time which is never null has no case in which it is.
COMMENT ON COLUMN coverage.covered_to IS 'The gatherer''s clock up to which a later frame or a pong proves that everything came: the time at which the exchange sent that frame, or at which the ping left that the pong answers. Microseconds since 1970 UTC.';
COMMENT ON COLUMN coverage.ended_by IS 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage, or continues: nothing ended. So that readers need not wait for its end, a stretch is cut once an hour, each market at a minute of its own; the next row begins where this one ends.';
COMMENT ON COLUMN trades.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN orderbook_deltas.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN tickers.exchange_ts IS 'The exchange''s clock, microseconds since 1970 UTC.';
COMMENT ON COLUMN coverage_readable.seen_to IS 'The gatherer''s clock up to which a later frame or a pong proves that everything came.';
