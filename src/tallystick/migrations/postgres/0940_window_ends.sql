-- A rolling window never ends. With an end behind all others, the windows under way are one range of
-- an index, and those that are over, of which there are more each day, are not read.
DROP INDEX enforcement.window_of_budget, enforcement.window_under_way;
CREATE INDEX window_of_budget ON enforcement.budget_window
    (tenant_id, budget_id, (coalesce(end_at, 9223372036854775807)));
CREATE INDEX window_under_way ON enforcement.budget_window
    ((coalesce(end_at, 9223372036854775807)));
