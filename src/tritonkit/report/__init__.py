"""What a person reads after a comparison: one HTML page, or one screen of text.

Both are drawn from `result.json` alone, through one view model (`view.py`), so that the page and
the terminal can never disagree about a number.
"""
