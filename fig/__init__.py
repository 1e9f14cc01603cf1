"""Pictures and tables: programs that draw from the files a run leaves."""
