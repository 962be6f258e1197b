-- The audit log of passwords: what `kalshi rotate-password` did in this database, when and by whom. A line
-- that says a password was set commits with the password.

CREATE TABLE rotations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    run          uuid NOT NULL,
    login        text NOT NULL,
    step         text NOT NULL,
    secret       text NOT NULL,
    version      text NOT NULL,
    done_by      text NOT NULL,
    session_name text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE rotations IS 'One row for each step of a rotation that changed this database or ended there; never a password. Written by rotation_noted alone.';
COMMENT ON COLUMN rotations.id IS 'The line''s number, in order of writing.';
COMMENT ON COLUMN rotations.at IS 'The server''s clock, in microseconds since the epoch, UTC.';
COMMENT ON COLUMN rotations.run IS 'One run of kalshi rotate-password; one that was killed and started again is two.';
COMMENT ON COLUMN rotations.login IS 'The role whose password it is.';
COMMENT ON COLUMN rotations.step IS 'set: from here on the password is that of the version. finish: that version is the current one of the secret. undo: the password is again that of the version, after a rotation that failed or was given up.';
COMMENT ON COLUMN rotations.secret IS 'Where the password is kept: aws:NAME#key or file:PATH.';
COMMENT ON COLUMN rotations.version IS 'The version of that secret.';
COMMENT ON COLUMN rotations.done_by IS 'Host and process, as the program says.';
COMMENT ON COLUMN rotations.session_name IS 'Who was logged in, as the server says.';

-- For whoever rotates, which may be a role for itself: it adds a line in its own name, and changes none.
-- With the body between BEGIN ATOMIC and END every name in it is resolved now, whoever calls it.
CREATE FUNCTION rotation_noted(run uuid, login text, step text, secret text, version text, done_by text)
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
BEGIN ATOMIC
    INSERT INTO rotations (run, login, step, secret, version, done_by)
    VALUES (run, login, step, secret, version, done_by);
END;
COMMENT ON FUNCTION rotation_noted IS 'Adds a line to the audit log of passwords, in the name of whoever is logged in.';

-- What tables get by default is too much for an audit log.
REVOKE INSERT ON rotations FROM deduplicator;
-- Everybody who may connect at all: an administrator is not known by name here.
GRANT EXECUTE ON FUNCTION rotation_noted TO PUBLIC;
