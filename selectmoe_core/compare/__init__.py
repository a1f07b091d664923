"""Comparing arms of several strategies and seeds: which differences are more than noise?"""
