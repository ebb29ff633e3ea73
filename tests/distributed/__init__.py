"""Functions over batches of tables on clusters."""
