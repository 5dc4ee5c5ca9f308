"""Reports of the conformance kit: the canonical JSON, and what is made of it for people and tools.

model       the report as data, read and written; `verify_report`
schema      its published form (schema.json)
text        for a terminal, and why a check failed
markdown, junit
            for pages, and for what reads test results
"""
