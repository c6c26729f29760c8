-- Horizons: facts of before one expire. Each row is a step forward for ever: events that are
-- received from closes_at on and happened before horizon_at are refused, and nothing but `ends`
-- is ever added to a row. So every process, and every replay, judges an event alike.
CREATE TABLE log.horizon (
    horizon_at bigint PRIMARY KEY,   -- micros, the first of a month (UTC)
    closes_at  bigint NOT NULL,      -- micros, our clock; an hour ahead, so that all doors know
    ends       jsonb,                -- partition -> head of the log when nothing of before came any
                                     -- more, corrections neither; NULL until then
    CONSTRAINT horizon_is_a_month CHECK (
        horizon_at % 1000000 = 0
        AND date_trunc('month', to_timestamp(horizon_at / 1000000) AT TIME ZONE 'UTC')
            = to_timestamp(horizon_at / 1000000) AT TIME ZONE 'UTC')
);

CREATE FUNCTION log.refuse_a_horizon_that_goes_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM log.horizon WHERE horizon_at >= NEW.horizon_at) THEN
        RAISE EXCEPTION 'the horizon never goes back'
            USING ERRCODE = 'integrity_constraint_violation';
    ELSIF TG_OP = 'UPDATE' AND (OLD.ends IS NOT NULL OR NEW.ends IS NULL
        OR NEW.horizon_at <> OLD.horizon_at OR NEW.closes_at <> OLD.closes_at) THEN
        RAISE EXCEPTION 'of a horizon only its ends are set, once'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER horizon_never_goes_back BEFORE INSERT OR UPDATE ON log.horizon
    FOR EACH ROW EXECUTE FUNCTION log.refuse_a_horizon_that_goes_back();
CREATE TRIGGER horizon_is_never_deleted BEFORE DELETE OR TRUNCATE ON log.horizon
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_change();

DO $$
BEGIN
    GRANT SELECT ON log.horizon TO tallystick_app, tallystick_read;
    GRANT INSERT, UPDATE ON log.horizon TO tallystick_app;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be granted: %', SQLERRM;
END $$;
