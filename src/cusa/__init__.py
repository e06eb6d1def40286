"""Image-text retrieval with Cross-modal and Uni-modal Soft-label Alignment (CUSA, AAAI 2024).

Importing this package imports no other module. docs/how-it-works.md lists the packages in the order in which data
flow through them.
"""

__version__ = "0.1.0"
