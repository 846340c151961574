# Not in the package that users install: npm would take it for something to build there, whatever package.json says.
{ "includes": ["native/addon.gypi"] }
