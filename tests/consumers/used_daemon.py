"""A daemon of PySpark that uses the package before it forks its workers."""

from pyspark.daemon import manager

import pyarrowquant

if __name__ == "__main__":
    pyarrowquant.release_memory()
    manager()
