-- KEYS[1] any key of the node. Returns its time in ms.
return now_ms()
