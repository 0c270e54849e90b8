"""The page's charts, one topic a file, each as a piece of SVG markup."""
