"""What reports are made of: the frame of a page, charts, histograms, thumbnails."""
