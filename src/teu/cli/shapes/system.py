"""What `info`, `version` and `context inspect` show. Source: moby `api/types`, docker/cli 28.2."""

from __future__ import annotations

SHAPES = {
    "events.Message": """
        Status=status string?
        ID=id string?
        From=from string?
        Type string
        Action string
        Actor events.Actor
        Scope=scope string?
        Time=time int64?
        TimeNano=timeNano int64?""",
    "events.Actor": "ID string\nAttributes map[string]string",
    "system.versionInfo": "Client system.clientVersion\nServer *types.Version",
    "system.clientVersion": """
        Platform *system.platformInfo?
        Version string?
        APIVersion=ApiVersion string?
        DefaultAPIVersion string?
        GitCommit string?
        GoVersion string?
        Os string?
        Arch string?
        BuildTime string?
        Context string""",
    "system.platformInfo": "Name string?",
    "types.Version": """
        Platform system.platformName?
        Components []types.ComponentVersion?
        Version string
        APIVersion=ApiVersion string
        MinAPIVersion string?
        GitCommit string
        GoVersion string
        Os string
        Arch string
        KernelVersion string?
        Experimental bool?
        BuildTime string?""",
    "system.platformName": "Name string",
    "types.ComponentVersion": "Name string\nVersion string\nDetails map[string]string?",
    "system.dockerInfo": """
        ...system.Info
        ServerErrors []string?
        UserName=- string
        ClientInfo *system.clientInfo?
        ClientErrors []string?""",
    "system.sparseInfo": "ClientInfo *system.clientInfo?\nClientErrors []string?",
    "system.clientInfo": """
        Debug bool
        ...system.clientVersion
        Plugins []any
        Warnings []string""",
    "system.Info": """
        ID string
        Containers int
        ContainersRunning int
        ContainersPaused int
        ContainersStopped int
        Images int
        Driver string
        DriverStatus [][]string
        SystemStatus [][]string?
        Plugins system.PluginsInfo
        MemoryLimit bool
        SwapLimit bool
        KernelMemory bool?
        KernelMemoryTCP bool?
        CPUCfsPeriod=CpuCfsPeriod bool
        CPUCfsQuota=CpuCfsQuota bool
        CPUShares bool
        CPUSet bool
        PidsLimit bool
        IPv4Forwarding bool
        Debug bool
        NFd int
        OomKillDisable bool
        NGoroutines int
        SystemTime string
        LoggingDriver string
        CgroupDriver string
        CgroupVersion string?
        NEventsListener int
        KernelVersion string
        OperatingSystem string
        OSVersion string
        OSType string
        Architecture string
        IndexServerAddress string
        RegistryConfig *registry.ServiceConfig
        NCPU int
        MemTotal int64
        GenericResources []any
        DockerRootDir string
        HTTPProxy=HttpProxy string
        HTTPSProxy=HttpsProxy string
        NoProxy string
        Name string
        Labels []string
        ExperimentalBuild bool
        ServerVersion string
        Runtimes map[string]system.RuntimeWithStatus
        DefaultRuntime string
        Swarm swarm.Info
        LiveRestoreEnabled bool
        Isolation string
        InitBinary string
        ContainerdCommit system.Commit
        RuncCommit system.Commit
        InitCommit system.Commit
        SecurityOptions []string
        ProductLicense string?
        DefaultAddressPools []system.NetworkAddressPool?
        FirewallBackend *system.FirewallInfo?
        CDISpecDirs []string
        DiscoveredDevices []system.DeviceInfo?
        Containerd *system.ContainerdInfo?
        Warnings []string""",
    "system.PluginsInfo": """
        Volume []string
        Network []string
        Authorization []string
        Log []string""",
    "system.Commit": "ID string\nExpected string?",
    "system.NetworkAddressPool": "Base string\nSize int",
    "system.FirewallInfo": "Driver string\nInfo [][]string?",
    "system.DeviceInfo": "Source string\nID string",
    "system.ContainerdInfo": "Address string?\nNamespaces system.ContainerdNamespaces",
    "system.ContainerdNamespaces": "Containers string\nPlugins string",
    "system.RuntimeWithStatus": "...system.Runtime\nStatus=status map[string]string?",
    "system.Runtime": """
        Path=path string?
        Args=runtimeArgs []string?
        Type=runtimeType string?
        Options=options map[string]any?""",
    # These two are sorted by name: Docker encodes them by way of a map.
    "registry.ServiceConfig": """
        AllowNondistributableArtifactsCIDRs []string?
        AllowNondistributableArtifactsHostnames []string?
        IndexConfigs map[string]*registry.IndexInfo
        InsecureRegistryCIDRs []string
        Mirrors []string""",
    "registry.IndexInfo": "Mirrors []string\nName string\nOfficial bool\nSecure bool",
    "swarm.Info": """
        NodeID string
        NodeAddr string
        LocalNodeState string
        ControlAvailable bool
        Error string
        RemoteManagers []any
        Nodes int?
        Managers int?
        Cluster *swarm.ClusterInfo?
        Warnings []string?""",
    "swarm.ClusterInfo": """
        ID string
        Version any
        CreatedAt time.Time
        UpdatedAt time.Time
        Spec any
        TLSInfo any
        RootRotationInProgress bool
        DefaultAddrPool []string
        SubnetSize uint32
        DataPathPort uint32""",
    "context.contextWithTLSListing": """
        ...store.Metadata
        TLSMaterial map[string][]string
        Storage store.StorageInfo""",
    "store.Metadata": "Name string?\nMetadata any?\nEndpoints map[string]any?",
    "store.StorageInfo": "MetadataPath string\nTLSPath string",
}
