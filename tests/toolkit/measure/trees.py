"""Trees of sysfs files, written from the formats that each generation has."""

from __future__ import annotations


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def zones(*pairs):
    files = {}
    for i, (name, milli) in enumerate(pairs):
        files |= {f"sys/class/thermal/thermal_zone{i}/type": name, f"sys/class/thermal/thermal_zone{i}/temp": milli}
    return files


def ina3221(chip, hwmon, rails):
    """Channels as ``(label, millivolts, milliamperes)``; the seventh, the sum of shunt voltages, is always there."""
    base = f"sys/bus/i2c/devices/{chip}"
    files = {f"{base}/name": "ina3221"}
    for i, (label, volts, amperes) in enumerate(rails, 1):
        files |= {f"{base}/hwmon/{hwmon}/in{i}_label": label, f"{base}/hwmon/{hwmon}/in{i}_input": volts}
        files |= {f"{base}/hwmon/{hwmon}/curr{i}_input": amperes, f"{base}/hwmon/{hwmon}/curr{i}_max": 9000}
    shunts = {"in7_label": "Sum of shunt voltages", "in7_input": 12, "curr7_input": 99}
    return files | {f"{base}/hwmon/{hwmon}/{name}": value for name, value in shunts.items()}


def policy(i, now, low, high, governor="schedutil"):
    base = f"sys/devices/system/cpu/cpufreq/policy{i}"
    return {
        f"{base}/scaling_cur_freq": now,
        f"{base}/scaling_min_freq": low,
        f"{base}/scaling_max_freq": high,
        f"{base}/scaling_governor": governor,
    }


def devfreq(name, now, low, high, tree=""):
    base = f"sys/class/devfreq/{name}"
    node = {f"{base}/device/of_node/name": tree} if tree else {}
    return {f"{base}/cur_freq": now, f"{base}/min_freq": low, f"{base}/max_freq": high, f"{base}/governor": "g"} | node


def rapl(zone, name, microjoules, wrap=262143328850):
    base = f"sys/class/powercap/{zone}"
    return {f"{base}/name": name, f"{base}/energy_uj": microjoules, f"{base}/max_energy_range_uj": wrap}


NANO_JP4 = {
    "sys/bus/i2c/devices/6-0040/name": "ina3221x",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": 2532,
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power1_input": 412,
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_2": "NC",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power2_input": 0,
    **zones(("CPU-therm", 35500), ("PLL-therm", 34000)),
    **devfreq("57000000.gpu", 76800000, 76800000, 921600000, "gpu"),
    **policy(0, 1428000, 102000, 1428000),
}
ORIN_NX_JP5 = {
    **ina3221("1-0040", "hwmon3", [("VDD_IN", 4936, 1000), ("VDD_CPU_GPU_CV", 4936, 200), ("VDD_SOC", 4928, 300)]),
    **zones(("CPU-therm", 48000), ("GPU-therm", 47500), ("CV0-therm", -256000)),
    **devfreq("17000000.ga10b", 306000000, 306000000, 918000000, "ga10b"),
    **policy(0, 729600, 729600, 1984000),
    **policy(10, 1984000, 729600, 1984000),
    **policy(4, 1190400, 729600, 1984000),
}
AGX_ORIN_JP6 = {
    **ina3221("1-0040", "hwmon4", [("VDD_GPU_SOC", 19000, 100), ("VDD_CPU_CV", 19000, 50), ("VIN_SYS_5V0", 5000, 400)]),
    **ina3221("1-0041", "hwmon5", [("NC", 19000, 0), ("VDDQ_VDD2_1V8AO", 19000, 10)]),
    **zones(("cpu-thermal", 52000), ("gpu-thermal", 49000), ("tj-thermal", 52000), ("gpu-thermal", 50000)),
    **devfreq("17000000.gpu", 1300500000, 1300500000, 1300500000, "gpu"),
    **devfreq("bwmgr", 1, 1, 1),
    **policy(0, 2201600, 2201600, 2201600, "performance"),
}
THOR_JP7 = {
    **ina3221(
        "2-0040", "hwmon2", [("VDD_GPU", 19000, 100), ("VDD_CPU_SOC_MSS", 19000, 300), ("VIN_SYS_5V0", 5000, 1000)]
    ),
    "sys/bus/i2c/devices/2-0044/name": "ina238",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon3/in1_input": 19500,
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon3/curr1_input": 1000,
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon3/power1_input": 19780000,
    **zones(("cpu-thermal", 43000), ("gpu-thermal", 42500)),
    **devfreq("gpu-gpc-0", 1575000000, 315000000, 1575000000),
    **devfreq("gpu-nvd-0", 315000000, 315000000, 1692000000),
    **policy(0, 2601000, 972000, 2601000),
}
GENERATIONS = {"jetpack4": NANO_JP4, "jetpack5": ORIN_NX_JP5, "jetpack6": AGX_ORIN_JP6, "jetpack7": THOR_JP7}
XEON = {
    **rapl("intel-rapl:0", "package-0", 5_000_000),
    **rapl("intel-rapl:0:0", "core", 3_000_000),
    **rapl("intel-rapl:0:1", "dram", 1_000_000),
    **rapl("intel-rapl:1", "package-1", 4_000_000),
    **rapl("intel-rapl:1:0", "dram", 1_000_000),
    **rapl("intel-rapl:2", "psys", 40_000_000),
    **policy(0, 2400000, 800000, 3500000, "performance"),
}
