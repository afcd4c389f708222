def clean_up(*, days: int = 7) -> None:
    """Pushed by Job.from_func, so it has no decorator."""
    print("cleaned up what is older than", days)
