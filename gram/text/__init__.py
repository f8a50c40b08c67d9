"""Texts as the whole project reads them: words and stems, fields, units, stop words, spelling, typos."""
