"""What ``--devices adb:SERIAL`` and ``device-farm:POOL_ARN`` select: real phones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from android_bench.devices.adb import AdbDevice, AndroidApp
from android_bench.devices.base import DeviceGroup, SingleDevice
from android_bench.devices.device_farm import DeviceFarmGroup, FarmTarget, InvalidFarmTarget


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """What real phones need beside their names.

    Attributes:
        app: The benchmark's app, to install on them.
        farm_project: ARN of the Device Farm project, where the pool does not name it.
        resume_run: ARN of a Device Farm run to take up.
        note: Told what goes on.
    """

    app: AndroidApp = field(default_factory=AndroidApp)
    farm_project: str | None = None
    resume_run: str | None = None
    note: Callable[[str], None] = lambda _: None


def select_adb(names: tuple[str, ...], options: PhoneOptions) -> Sequence[DeviceGroup]:
    """Connected devices by serial; the only one connected without one.

    Raises:
        FlintError: If adb or a device is not there or not ready, or an APK is not there.
    """
    wanted: Sequence[str | None] = names or (None,)
    devices = [AdbDevice(serial, options.app) for serial in wanted]
    return [SingleDevice(f"adb:{device.serial}", device) for device in devices]


def select_device_farm(names: tuple[str, ...], options: PhoneOptions) -> Sequence[DeviceGroup]:
    """Device pools by ARN.

    Raises:
        FlintError: If an ARN is none, an APK is not given, or boto3 is not installed.
    """
    if not names:
        raise InvalidFarmTarget(
            "--devices device-farm names no device pool; give its ARN, "
            "device-farm:arn:aws:devicefarm:us-west-2:ACCOUNT:devicepool:PROJECT/POOL"
        )
    if options.resume_run is not None and len(names) > 1:
        raise InvalidFarmTarget(
            f"--resume-run takes up one run, and --devices names {len(names)} device pools; name "
            "the run's own"
        )
    return [
        DeviceFarmGroup(
            FarmTarget(name, options.app, options.farm_project, options.resume_run),
            note=options.note,
        )
        for name in names
    ]
