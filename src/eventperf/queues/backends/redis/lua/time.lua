return { string.format('%d', clock[1]), string.format('%d', clock[2]) }
