-- The ten worst days of each airport, by mean delay, with a window over groups.
SELECT origin, month, day, flights, mean_delay, place
FROM (
    SELECT
        origin, month, day, flights, mean_delay,
        rank() OVER (PARTITION BY origin ORDER BY mean_delay DESC) AS place
    FROM (
        SELECT origin, month, day, count(*) AS flights, avg(dep_delay) AS mean_delay
        FROM flights
        WHERE dep_delay IS NOT NULL
        GROUP BY origin, month, day
    ) AS days
) AS ranked
WHERE place <= 10
ORDER BY origin, place, month, day;
