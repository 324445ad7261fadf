// Kubernetes' EndpointSlice and DaemonSet controllers by themselves: what kube-controller-manager with
// --controllers=endpointslice-controller,daemonset-controller runs, without compiling the forty others.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
)

// kube-controller-manager's defaults.
const (
	endpointsPerSlice  = 100
	endpointWorkers    = 5
	daemonSetWorkers   = 2
	resync             = 12 * time.Hour
	failedPodsPause    = time.Second
	failedPodsPauseMax = 15 * time.Minute
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: controllers KUBECONFIG")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	factory := informers.NewSharedInformerFactory(client, resync)
	core := factory.Core().V1()
	slices := factory.Discovery().V1().EndpointSlices()
	endpoints := endpointslice.NewController(
		ctx, core.Pods(), core.Services(), core.Nodes(), slices, endpointsPerSlice, client, 0)
	apps := factory.Apps().V1()
	daemonSets, err := daemon.NewDaemonSetsController(
		ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(), client,
		flowcontrol.NewBackOff(failedPodsPause, failedPodsPauseMax))
	if err != nil {
		log.Fatal(err)
	}
	factory.Start(ctx.Done())
	go daemonSets.Run(ctx, daemonSetWorkers)
	endpoints.Run(ctx, endpointWorkers)
}
