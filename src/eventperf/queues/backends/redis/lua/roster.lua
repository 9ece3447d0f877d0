-- The live workers: their ids and cards, and who runs each job that runs.
local running = call('HVALS', P .. 'a')
for k, lease in ipairs(running) do running[k] = string.match(lease, '^%d+\31%d+\31(.*)$') or '' end
return { string.format('%d', now), call('HGETALL', P .. 'wk'), running }
