"""Lists of splits, a line for each image."""

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """The lines of a list.

    Args:
        path: The file.

    Returns:
        Its lines.

    Raises:
        ValueError: If it is no text.
    """
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not a text file in UTF-8 ({error}).') from None
