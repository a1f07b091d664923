"""The executor ``ray``: the processes of stages run on a Ray cluster."""
