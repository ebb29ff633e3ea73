"""The page that `pyarrowquant report` writes: what is in it, its charts, its HTML."""
