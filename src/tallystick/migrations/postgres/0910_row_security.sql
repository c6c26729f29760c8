-- A second wall between tenants. A request of a tenant runs its transactions as the role
-- tallystick_tenant with tallystick.tenant set to it (plumbing/postgres.py): it may do what
-- tallystick_app may, but sees and writes rows of that tenant alone, also by a query that forgot
-- to ask for it. Workers, the operator and the ledger's own decisions stay tallystick_app, whose
-- policy is the constant true and costs nothing. Covered is every table that says whose its rows
-- are. Where no roles could be made the setting alone decides, for the owner too (FORCE).
DO $$
DECLARE
    whom text := 'tallystick_tenant';
    own  text := $own$current_setting('tallystick.tenant', true)$own$;
    is_other text := '';  -- or a condition for who acts for nobody
    found record;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = whom) THEN
            CREATE ROLE tallystick_tenant NOLOGIN;
        END IF;
        GRANT tallystick_app TO tallystick_tenant;
        EXECUTE format('GRANT tallystick_tenant TO %I', current_user);
    EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
        RAISE NOTICE 'the role tallystick_tenant could not be made: %', SQLERRM;
        whom := 'PUBLIC';
        is_other := format('coalesce(%s, %L) = %L OR ', own, '', '');
    END;

    FOR found IN
        SELECT c.table_schema, c.table_name, format('%stenant_id = %s', is_other, own) AS rule
        FROM information_schema.columns c
        JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE c.column_name = 'tenant_id' AND t.table_type = 'BASE TABLE'
            AND c.table_schema NOT IN ('pg_catalog', 'information_schema', 'catalog')
        UNION ALL VALUES
            -- price lists of everybody belong to no tenant
            ('catalog', 'rate_card', format('%stenant_id IN (%L, %s)', is_other, '', own)),
            -- a backfill may name several tenants: it is one's when it names that one alone
            ('backfill', 'backfill', format('%stenant_ids = ARRAY[%s]', is_other, own)),
            -- balances and lots are named by their account, whose row is or is not there
            ('ledger', 'balance', format('%sEXISTS (SELECT FROM ledger.account a
                WHERE a.account_id = balance.account_id)', is_other)),
            ('ledger', 'lot', format('%sEXISTS (SELECT FROM ledger.account a
                WHERE a.account_id = lot.account_id)', is_other))
    LOOP
        EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', found.table_schema,
            found.table_name);
        EXECUTE format('ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY', found.table_schema,
            found.table_name);
        EXECUTE format('CREATE POLICY of_all ON %I.%I USING (true)', found.table_schema,
            found.table_name);
        EXECUTE format('CREATE POLICY of_tenant ON %I.%I AS RESTRICTIVE TO %s USING (%s)',
            found.table_schema, found.table_name, whom, found.rule);
    END LOOP;
END $$;
