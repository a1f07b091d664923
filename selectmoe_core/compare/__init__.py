"""Arms of several strategies and seeds side by side: which differences are more than noise?"""
