-- Least privilege: the product's connections take the role tallystick_app, which cannot change
-- or delete history whatever a statement says; tallystick_read is for people and tools that
-- only look. Where the owner may not create roles, the triggers alone guard history and the
-- product works as the owner (docs/ledger.md says how to make the roles by hand).
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA log, charger, catalog, ledger TO tallystick_app, tallystick_read;
    GRANT SELECT ON ALL TABLES IN SCHEMA log, charger, catalog, ledger
        TO tallystick_app, tallystick_read;
    -- history: it can only grow
    GRANT INSERT ON log.batch, catalog.rate_card_version, ledger.operation, ledger.block,
        ledger.account TO tallystick_app;
    -- where things stand: rows change but never go
    GRANT INSERT, UPDATE ON log.head, catalog.rate_card, ledger.balance,
        ledger.lot, ledger.limit_window, ledger.run_charge TO tallystick_app;
    -- what is open: rows come and go
    GRANT INSERT, UPDATE, DELETE ON log.follower, log.lease, charger.pending_run, ledger.hold
        TO tallystick_app;
    EXECUTE format('GRANT tallystick_app TO %I', current_user);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
