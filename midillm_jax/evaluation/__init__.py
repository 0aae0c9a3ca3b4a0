"""Music becomes scores and a page to look at."""
