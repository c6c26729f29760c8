-- No statement looks holds up by account (the book takes them by id, by run, by when they are
-- due), and every hold paid for the index twice: when it began and when it ended.
DROP INDEX ledger.hold_of_account;
