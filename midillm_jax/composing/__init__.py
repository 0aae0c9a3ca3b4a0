"""What people ask for, answered with files: shared by the commands and the page."""
