"""Where does each section of the report get its values?"""
