"""What is to come: the trend, what recurs, what is dated, what is usual. Pure."""
