"""Excel workbooks (.xlsx): the rows of one sheet, in bounded memory. Import it only when a file needs it."""
