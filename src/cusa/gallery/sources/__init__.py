"""The sources of galleries: a folder of pictures, a table, tars, Parquet files, a data set's split, or texts."""
