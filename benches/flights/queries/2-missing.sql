-- What is missing: planes and airports that the small tables do not know, and values that are NA.
SELECT
    f.carrier,
    f.origin,
    count(*) AS flights,
    count(*) - count(f.dep_time) AS cancelled,
    count(*) - count(p.tailnum) AS unknown_planes,
    count(*) - count(a.faa) AS unknown_airports,
    count(w.wind_gust) AS gusts_known,
    avg(p.year) AS mean_year_built
FROM flights f
LEFT JOIN planes p ON f.tailnum = p.tailnum
LEFT JOIN airports a ON f.dest = a.faa
LEFT JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
GROUP BY f.carrier, f.origin
ORDER BY f.carrier, f.origin;
