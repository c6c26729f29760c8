-- Where a follower began a partition of Kafka: what retention had deleted before was never its own.
-- A partition without a row was begun at offset 0.
CREATE TABLE log.beginning (
    follower     text     NOT NULL,
    partition    smallint NOT NULL,
    first_offset bigint   NOT NULL CHECK (first_offset >= 0),
    PRIMARY KEY (follower, partition)
);

-- The roles of 0900_roles.sql, which a new database makes only after this file.
DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tallystick_app', 'tallystick_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA log TO tallystick_app, tallystick_read;
    GRANT SELECT ON log.beginning TO tallystick_app, tallystick_read;
    GRANT INSERT, UPDATE ON log.beginning TO tallystick_app;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the roles tallystick_app and tallystick_read could not be made: %', SQLERRM;
END $$;
