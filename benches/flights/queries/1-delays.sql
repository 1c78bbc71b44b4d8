-- Which makers' planes are late where, and in what weather: all four tables, grouped.
SELECT
    p.manufacturer,
    a.name AS destination,
    count(*) AS flights,
    count(f.arr_delay) AS arrived,
    avg(f.dep_delay) AS mean_departure_delay,
    max(f.arr_delay) AS worst_arrival_delay,
    sum(f.distance) AS miles,
    avg(w.visib) AS mean_visibility,
    min(w.temp) AS coldest
FROM flights f
JOIN planes p ON f.tailnum = p.tailnum
JOIN airports a ON f.dest = a.faa
JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
GROUP BY p.manufacturer, a.name
ORDER BY flights DESC, p.manufacturer, a.name;
