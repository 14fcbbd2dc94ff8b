"""What everything runs on: kernel launches, threads, files."""
